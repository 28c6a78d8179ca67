// The non-linearities of feed-forward layers, by their names in config.json.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>
#include <vector>

namespace ess::models {

// Applies the function to every entry.
using ActivationInPlace = void (*)(at::Tensor& x);

// Every name that FindActivation knows: "silu", "gelu_new", ...
std::vector<std::string> ActivationNames();

// REQUIRES: `name` is one of ActivationNames().
ActivationInPlace FindActivation(std::string_view name);

}  // namespace ess::models
