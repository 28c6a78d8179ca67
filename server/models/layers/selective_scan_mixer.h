// The mixer of Mamba: a short convolution, then a selective scan of each channel, then a gate.
// Source: Gu and Dao 2023 (arXiv:2312.00752), section 3.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/models/config_reader.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/sequence_mixer.h"
#include "server/models/tensor_source.h"

namespace ess::models {

// RMS norms of what makes delta, of B and of C.
enum class ScanFeatureNorms {
  kNone,
  kWeightless,  // Falcon-Mamba
  kLearned,     // Jamba
};

struct SelectiveScanConfig {
  int64_t hidden_size = 0;     // D
  int64_t channels = 0;        // E
  int64_t state_size = 0;      // N
  int64_t time_step_rank = 0;  // Of what makes delta.
  int64_t convolution_taps = 0;
  bool projection_bias = false;
  bool convolution_bias = true;
  ActivationInPlace activation = nullptr;
  ScanFeatureNorms feature_norms = ScanFeatureNorms::kNone;
  double feature_norm_epsilon = 0;
};

// A rank under `key`; "auto" or absent: ceil(D / 16). Errors: those of ConfigReader.
absl::StatusOr<int64_t> ReadTimeStepRank(const ConfigReader& config, std::string_view key,
                                         int64_t hidden_size);

// Takes "PREFIXin_proj", "PREFIXconv1d", ... Errors: those of TensorSource.
absl::StatusOr<std::unique_ptr<SequenceMixer>> TakeSelectiveScanMixer(
    TensorSource& tensors, const std::string& prefix, const SelectiveScanConfig& config);

}  // namespace ess::models
