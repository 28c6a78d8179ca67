// The mixer of Mamba-2: a short convolution of x, B and C, then a scan with one gate per head, then
// a gated norm.
// Source: Dao and Gu 2024 (arXiv:2405.21060), sections 6 and 7.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "server/models/config_reader.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/sequence_mixer.h"
#include "server/models/tensor_source.h"

namespace ess::models {

// The RMS norm of each group of channels, and the gate silu(z).
enum class ScanOutputNorm {
  kNone,  // The gate alone.
  kGateFirst,
  kNormFirst,
};

struct HeadScanConfig {
  int64_t hidden_size = 0;  // D
  int64_t head_count = 0;   // H
  int64_t head_dim = 0;     // d
  int64_t group_count = 0;  // G: heads share B and C.
  int64_t state_size = 0;   // N
  int64_t convolution_taps = 0;
  bool input_bias = false, output_bias = false;
  bool convolution_bias = true;
  std::pair<double, double> time_step_limit;
  ActivationInPlace activation = nullptr;
  ScanOutputNorm norm = ScanOutputNorm::kGateFirst;
  double norm_epsilon = 0;
  // Of the projections to z, x, B, C and the time steps (Falcon-H1).
  std::array<double, 5> multipliers = {1, 1, 1, 1, 1};

  int64_t width() const { return head_count * head_dim; }                       // E
  int64_t convolved() const { return width() + 2 * group_count * state_size; }  // x, B and C.
};

// Keys of the sizes, as messages spell them.
struct HeadScanKeys {
  std::string_view head_count, head_dim, group_count, state_size;
};

// Heads that share out the `width` of the mixer, which messages call `width_name`, and groups of
// equal size. Errors: kDataLoss; kFailedPrecondition  more states than a model may have.
absl::Status CheckHeadScan(const ConfigReader& config, const HeadScanConfig& scan, int64_t width,
                           std::string_view width_name, const HeadScanKeys& keys);

// The sizes that hybrids call mamba_n_heads, mamba_d_head, mamba_n_groups, mamba_d_state,
// mamba_d_conv, mamba_conv_bias, mamba_proj_bias (of the input's projection) and time_step_limit.
// The width is `width_key`, or mamba_expand * hidden_size where the file says null or the key is
// empty; absent: `default_width`. REQUIRES: scan.hidden_size. Errors: those of ConfigReader.
absl::Status ReadPrefixedHeadScan(const ConfigReader& config, std::string_view width_key,
                                  int64_t default_width, HeadScanConfig& scan);

// Takes "PREFIXin_proj", "PREFIXconv1d", ... Errors: those of TensorSource.
absl::StatusOr<std::unique_ptr<SequenceMixer>> TakeHeadScanMixer(TensorSource& tensors,
                                                                 const std::string& prefix,
                                                                 const HeadScanConfig& config);

}  // namespace ess::models
