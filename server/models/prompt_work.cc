#include "server/models/prompt_work.h"

#include <algorithm>
#include <iterator>

namespace ess::models {
namespace {

// ESS of longer prompts is worth several threads, whatever the model.
constexpr int64_t kLongest = 256;
// Multiply-adds of a layer: a third of a millisecond on one core. Threads take turns about fifteen
// times in a layer, at some 10 us each.
constexpr double kMostMultiplyAdds = 16e6;

}  // namespace

bool RunsOnOneThread(const ModelDescription& model, int64_t tokens) {
  if (tokens > kLongest) return false;
  const int64_t layers = std::max<int64_t>(std::ssize(model.mixers), 1);
  const int64_t in_layers = model.parameters - model.vocabulary_size * model.hidden_size;
  const double weights = static_cast<double>(std::max<int64_t>(in_layers, 0) / layers);
  const double length = static_cast<double>(tokens);
  return length * (weights + length * static_cast<double>(model.hidden_size)) < kMostMultiplyAdds;
}

}  // namespace ess::models
