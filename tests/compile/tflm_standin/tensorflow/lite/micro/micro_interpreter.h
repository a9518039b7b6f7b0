// A stand-in for the part of TFLM's C++ API that policy_tflm.cc uses, by its names and signatures.
// It is not TFLM: Invoke calls a hook, behind which the tests put the tflite-micro interpreter with
// TFLM's real kernels. So the tests run the generated C++ itself, and TFLM's arithmetic.
// STANDIN_NAMESPACE_MICRO declares the classes where recent versions of TFLM have them.
#ifndef STANDIN_MICRO_INTERPRETER_H
#define STANDIN_MICRO_INTERPRETER_H

#include <cstddef>
#include <cstdint>

#include "tensorflow/lite/schema/schema_generated.h"

struct Standin {
  int (*invoke)(const void* input, void* output);  // 0 when it succeeded
  int fail_allocation;
  size_t arena_bytes;
  unsigned int misaligned;  // pointers that were not aligned to 16
  unsigned int operators;
  unsigned int capacity;
  alignas(16) char input[4096];
  alignas(16) char output[4096];
};
extern "C" {
inline Standin standin;
}

#ifdef STANDIN_NAMESPACE_MICRO
namespace tflite::micro {
#else
enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
namespace tflite {
#endif

#ifdef STANDIN_NAMESPACE_MICRO
enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
#endif

class MicroOpResolver {
 public:
  virtual ~MicroOpResolver() {}
};

class MicroResourceVariables;
class MicroProfilerInterface;

class MicroInterpreter {
 public:
  MicroInterpreter(const Model* model, const MicroOpResolver&, uint8_t* arena, size_t arena_bytes,
                   MicroResourceVariables* = nullptr, MicroProfilerInterface* = nullptr,
                   bool = false) {
    standin.arena_bytes = arena_bytes;
    standin.misaligned += reinterpret_cast<uintptr_t>(model) % 16 != 0;
    standin.misaligned += reinterpret_cast<uintptr_t>(arena) % 16 != 0;
  }
  ~MicroInterpreter() {}
  TfLiteStatus AllocateTensors() { return standin.fail_allocation ? kTfLiteError : kTfLiteOk; }
  TfLiteStatus Invoke() {
    return standin.invoke(standin.input, standin.output) == 0 ? kTfLiteOk : kTfLiteError;
  }
  template <class T>
  T* typed_input_tensor(int) {
    return reinterpret_cast<T*>(standin.input);
  }
  template <class T>
  T* typed_output_tensor(int) {
    return reinterpret_cast<T*>(standin.output);
  }
  size_t arena_used_bytes() const { return 1234; }
};

}  // namespace

#ifdef STANDIN_NAMESPACE_MICRO
namespace tflite {
using micro::kTfLiteError;
using micro::kTfLiteOk;
using micro::MicroOpResolver;
using micro::TfLiteStatus;
}  // namespace tflite
#endif

#endif
