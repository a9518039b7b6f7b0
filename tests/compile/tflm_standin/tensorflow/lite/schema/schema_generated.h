// Part of a stand-in for TFLM's API: see ../micro/micro_interpreter.h.
#ifndef STANDIN_SCHEMA_GENERATED_H
#define STANDIN_SCHEMA_GENERATED_H

namespace tflite {
struct Model;
inline const Model* GetModel(const void* content) { return static_cast<const Model*>(content); }
}  // namespace tflite

#endif
