// y = x W^T + b.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/models/tensor_source.h"

namespace ess::models {

// Immutable after loading.
struct Linear {
  at::Tensor weight;  // [outputs, inputs]
  at::Tensor bias;    // [outputs], or undefined

  // x [L, inputs] => [L, outputs], in the dtype of x: weights of another are converted at each
  // call.
  at::Tensor operator()(const at::Tensor& x) const;

  // The projection to outputs [first, first + count) alone; shares the weights.
  Linear Rows(int64_t first, int64_t count) const;

  // residual [L, outputs] += x W^T + b, without a temporary for the product.
  void AddToInPlace(at::Tensor& residual, const at::Tensor& x) const;
};

// How a checkpoint stores the weight.
enum class LinearLayout {
  kOutputsByInputs,  // torch.nn.Linear
  kInputsByOutputs,  // Conv1D of GPT-2
};

// Takes "NAME.weight" and, with `bias`, "NAME.bias". Errors: those of TensorSource::Take.
absl::StatusOr<Linear> TakeLinear(TensorSource& source, const std::string& name, int64_t outputs,
                                  int64_t inputs, bool bias,
                                  LinearLayout layout = LinearLayout::kOutputsByInputs);

// One stored projection whose rows are several, one after the other: takes it as TakeLinear does,
// with as many outputs as the sum of `row_counts`, and returns the parts, which share its weights.
absl::StatusOr<std::vector<Linear>> TakeFusedLinear(TensorSource& source, const std::string& name,
                                                    const std::vector<int64_t>& row_counts,
                                                    int64_t inputs, bool bias);

// The output head: "NAME.weight" of the embedding's shape, or the embedding itself where the
// checkpoint has none, whatever tie_word_embeddings says. No bias.
absl::StatusOr<Linear> TakeHead(TensorSource& source, const std::string& name,
                                const at::Tensor& embedding);

}  // namespace ess::models
