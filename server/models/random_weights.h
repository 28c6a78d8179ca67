// The weights of a model at the start of training, in place of a checkpoint.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "server/models/initial_weights.h"
#include "server/models/tensor_source.h"

namespace ess::models {

// Makes each tensor when it is asked for, as float32. It depends on its name, its shape and the
// seed: the same on every device, in any order and for any number of threads.
class RandomWeights final : public TensorSource {
 public:
  RandomWeights(InitialWeights initial, uint64_t seed, std::string device)
      : initial_(std::move(initial)), seed_(seed), device_(std::move(device)) {}

  bool Has(std::string_view name) const override { return !initial_.absent.contains(name); }

  // Errors: kInternal  the architecture has no rule for the tensor; kResourceExhausted.
  absl::StatusOr<at::Tensor> Take(std::string_view name, at::IntArrayRef shape) override;

  TensorTotals Totals() const override { return totals_; }

 private:
  const InitialWeights initial_;
  const uint64_t seed_;
  const std::string device_;
  TensorTotals totals_{.dtype = "float32"};
};

// Makes tensors without memory, to learn what a model would take. On the device "meta" they have no
// values, and nothing that is made of them has memory either; but LibTorch lacks some operations
// there. On the CPU they are one zero, which may multiply in what a model makes of its weights: so
// they may be as many as fit into the memory of the machine.
class WeightShapes final : public TensorSource {
 public:
  WeightShapes(InitialWeights initial, at::Device device)
      : initial_(std::move(initial)), device_(device) {}

  bool Has(std::string_view name) const override { return !initial_.absent.contains(name); }

  // Errors: kResourceExhausted  a size that no machine has.
  absl::StatusOr<at::Tensor> Take(std::string_view name, at::IntArrayRef shape) override;

  TensorTotals Totals() const override { return totals_; }

 private:
  const InitialWeights initial_;
  const at::Device device_;
  TensorTotals totals_{.dtype = "float32"};
};

}  // namespace ess::models
