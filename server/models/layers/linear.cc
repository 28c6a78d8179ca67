#include "server/models/layers/linear.h"

#include <ATen/ATen.h>

#include <numeric>

#include "server/base/status_macros.h"

namespace ess::models {

at::Tensor Linear::operator()(const at::Tensor& x) const {
  return at::linear(x, weight.to(x.scalar_type()),
                    bias.defined() ? bias.to(x.scalar_type()) : bias);
}

void Linear::AddToInPlace(at::Tensor& residual, const at::Tensor& x) const {
  residual.addmm_(x, weight.t());
  if (bias.defined()) residual.add_(bias);
}

Linear Linear::Rows(int64_t first, int64_t count) const {
  return {.weight = weight.narrow(0, first, count),
          .bias = bias.defined() ? bias.narrow(0, first, count) : bias};
}

absl::StatusOr<Linear> TakeLinear(TensorSource& source, const std::string& name, int64_t outputs,
                                  int64_t inputs, bool bias, LinearLayout layout) {
  Linear linear;
  if (layout == LinearLayout::kOutputsByInputs) {
    ESS_ASSIGN_OR_RETURN(linear.weight, source.Take(name + ".weight", {outputs, inputs}));
  } else {
    ESS_ASSIGN_OR_RETURN(const at::Tensor stored, source.Take(name + ".weight", {inputs, outputs}));
    linear.weight = stored.t();
  }
  if (bias) {
    ESS_ASSIGN_OR_RETURN(linear.bias, source.Take(name + ".bias", {outputs}));
  }
  return linear;
}

absl::StatusOr<std::vector<Linear>> TakeFusedLinear(TensorSource& source, const std::string& name,
                                                    const std::vector<int64_t>& row_counts,
                                                    int64_t inputs, bool bias) {
  const int64_t rows = std::accumulate(row_counts.begin(), row_counts.end(), int64_t{0});
  ESS_ASSIGN_OR_RETURN(const Linear all, TakeLinear(source, name, rows, inputs, bias));
  std::vector<Linear> parts;
  int64_t first = 0;
  for (const int64_t count : row_counts) {
    parts.push_back(all.Rows(first, count));
    first += count;
  }
  return parts;
}

absl::StatusOr<Linear> TakeHead(TensorSource& source, const std::string& name,
                                const at::Tensor& embedding) {
  if (!source.Has(name + ".weight")) return Linear{.weight = embedding, .bias = {}};
  return TakeLinear(source, name, embedding.size(0), embedding.size(1), /*bias=*/false);
}

}  // namespace ess::models
