// The weights of a model on the host, as they were taken, so that it can be built again without its
// files.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "server/models/tensor_source.h"

namespace ess::models {

struct HostWeights {
  std::map<std::string, at::Tensor, std::less<>> tensors;  // On the CPU.
  std::map<std::string, bool, std::less<>> asked;          // What Has answered.
  TensorTotals totals;
};

// Takes from `inner`, whose tensors are on the CPU, hands them on to `device`, and remembers them
// in `kept`.
class KeepingTensors final : public TensorSource {
 public:
  // Both outlive this.
  KeepingTensors(TensorSource& inner, std::string device, HostWeights& kept)
      : inner_(inner), device_(std::move(device)), kept_(kept) {}

  bool Has(std::string_view name) const override;
  absl::StatusOr<at::Tensor> Take(std::string_view name, at::IntArrayRef shape) override;
  void IgnorePrefix(std::string_view prefix) override { inner_.IgnorePrefix(prefix); }
  TensorTotals Totals() const override { return inner_.Totals(); }

 private:
  TensorSource& inner_;
  const std::string device_;
  HostWeights& kept_;
};

// Hands out what was kept.
class KeptTensors final : public TensorSource {
 public:
  // `kept` outlives this.
  KeptTensors(const HostWeights& kept, std::string device)
      : kept_(kept), device_(std::move(device)) {}

  bool Has(std::string_view name) const override;
  absl::StatusOr<at::Tensor> Take(std::string_view name, at::IntArrayRef shape) override;
  TensorTotals Totals() const override { return kept_.totals; }

 private:
  const HostWeights& kept_;
  const std::string device_;
};

}  // namespace ess::models
