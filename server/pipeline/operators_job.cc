#include "server/pipeline/operators_job.h"

#include <functional>
#include <numeric>

namespace ess {

int64_t ElementCount(const operators::ArgumentDeclaration& argument) {
  return std::accumulate(argument.shape.begin(), argument.shape.end(), int64_t{1},
                         std::multiplies<>());
}

int64_t ByteCount(const operators::ArgumentDeclaration& argument) {
  return ElementCount(argument) * static_cast<int64_t>(c10::elementSize(argument.dtype));
}

}  // namespace ess
