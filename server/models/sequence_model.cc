#include "server/models/sequence_model.h"

#include "fmt/format.h"

namespace ess::models {

std::string MixerName(int64_t layer_index) { return fmt::format("{:03}", layer_index); }

std::string MixerName(int64_t layer_index, std::string_view kind) {
  return fmt::format("{:03}.{}", layer_index, kind);
}

}  // namespace ess::models
