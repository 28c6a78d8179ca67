#include "server/models/gaussian_prompts.h"

#include <ATen/ATen.h>

#include "fmt/format.h"
#include "server/models/random_fill.h"

namespace ess::models {

at::Tensor GaussianEmbeddings(const GaussianPrompts& prompts, int64_t prompt, int64_t width) {
  at::Tensor embeddings = at::empty({prompts.length, width}, at::kFloat);
  FillNormal(RandomNumbers(prompts.seed, fmt::format("gaussian.{}", prompt)), embeddings);
  return embeddings;
}

}  // namespace ess::models
