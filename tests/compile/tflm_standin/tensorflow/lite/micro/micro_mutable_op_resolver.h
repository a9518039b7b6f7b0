// Part of a stand-in for TFLM's API: see micro_interpreter.h.
#ifndef STANDIN_MICRO_MUTABLE_OP_RESOLVER_H
#define STANDIN_MICRO_MUTABLE_OP_RESOLVER_H

#include "tensorflow/lite/micro/micro_interpreter.h"

namespace tflite {

template <unsigned int tOpCount>
class MicroMutableOpResolver : public MicroOpResolver {
 public:
  TfLiteStatus AddFullyConnected() { return Add(); }
  TfLiteStatus AddLeakyRelu() { return Add(); }
  TfLiteStatus AddRelu() { return Add(); }
  TfLiteStatus AddTanh() { return Add(); }
  TfLiteStatus AddElu() { return Add(); }
  TfLiteStatus AddLogistic() { return Add(); }
  TfLiteStatus AddMinimum() { return Add(); }
  TfLiteStatus AddMaximum() { return Add(); }

 private:
  TfLiteStatus Add() {
    if (count_ == tOpCount) return kTfLiteError;
    ++count_;
    standin.operators = count_;
    standin.capacity = tOpCount;
    return kTfLiteOk;
  }
  unsigned int count_ = 0;
};

}  // namespace tflite

#endif
