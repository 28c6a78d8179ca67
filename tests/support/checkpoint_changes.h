// Changes of the tensors of a checkpoint, before it is written.
#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cstdint>
#include <map>
#include <string>

#include "tests/support/safetensors_writer.h"

namespace ess::testing {

// The numbers of a float32 tensor, in place.
inline at::Tensor ValuesOf(TensorToWrite& tensor) {
  return at::from_blob(tensor.bytes.data(), tensor.shape, at::kFloat);
}

// Rounds every weight.
inline void StoreAsBfloat16(std::map<std::string, TensorToWrite>& tensors) {
  for (auto& [name, tensor] : tensors) {
    const at::Tensor values = ValuesOf(tensor).to(at::kBFloat16);
    tensor.dtype = "BF16";
    tensor.bytes.assign(static_cast<const char*>(values.const_data_ptr()), values.nbytes());
  }
}

// Embeds every token as ones of both signs, as many of each, which no norm changes; and no layer
// adds anything to them.
inline void LetMixersSeeOnesOfBothSigns(std::map<std::string, TensorToWrite>& tensors,
                                        int64_t vocabulary_size) {
  constexpr const char* kOutputs[] = {"o_proj", "out_proj",      "down_proj", "c_proj",
                                      "dense",  "dense_4h_to_h", "fc2",       "w2",
                                      "value",  "output_linear", "wpe"};
  for (auto& [name, tensor] : tensors) {
    at::Tensor values = ValuesOf(tensor);
    if (tensor.shape.size() == 2 && tensor.shape[0] == vocabulary_size) {
      const at::Tensor half = at::randn({tensor.shape[0], tensor.shape[1] / 2},
                                        at::make_generator<at::CPUGeneratorImpl>(3));
      values.copy_(at::cat({half.sign(), half.sign().neg()}, 1));
    }
    const auto has = [path = "." + name + "."](const std::string& part) {
      return path.find(part) != std::string::npos;
    };
    if (tensor.shape.size() == 1 && (has("norm") || has("ln_"))) {
      values.fill_(name.ends_with(".bias") ? 0 : 1);
    }
    for (const std::string output : kOutputs) {
      if (has("." + output + ".")) values.zero_();
    }
  }
}

}  // namespace ess::testing
