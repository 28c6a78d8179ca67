#include "server/models/qwen_windows.h"

#include "server/base/status_macros.h"
#include "server/models/gated_decoder.h"
#include "server/models/model_description.h"

namespace ess::models {

absl::StatusOr<std::vector<int64_t>> ReadQwenWindows(const ConfigReader& config,
                                                     int64_t layer_count) {
  ESS_ASSIGN_OR_RETURN(const bool used, config.Bool("use_sliding_window", false));
  ESS_ASSIGN_OR_RETURN(const int64_t window, config.SizeOrNone("sliding_window", 4096));
  // 0 is allowed: a window in every layer.
  ESS_ASSIGN_OR_RETURN(const int64_t first, config.Count("max_window_layers", 28));
  return ReadLayerWindows(config, layer_count, used ? window : 0,
                          [first](int64_t layer) { return layer >= first; });
}

}  // namespace ess::models
