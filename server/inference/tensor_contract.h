// The tensors of the Open Inference Protocol service, for every model: one table, from which
// metadata, configuration, decoding and encoding are made. docs/inference-protocol.md explains
// them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace ess::inference {

inline constexpr char kVersion[] = "1";  // Of every model: versions must be decimal integers.
inline constexpr char kPlatform[] = "ess_libtorch";

inline constexpr char kTokens[] = "TOKENS";
inline constexpr char kText[] = "TEXT";
inline constexpr char kLengths[] = "LENGTHS";

inline constexpr char kEss[] = "ESS";
inline constexpr char kCertain[] = "CERTAIN";
inline constexpr char kMeasure[] = "MEASURE";
inline constexpr char kLayer[] = "LAYER";
inline constexpr char kLayerIndex[] = "LAYER_INDEX";
inline constexpr char kHeadIndex[] = "HEAD_INDEX";
inline constexpr char kPositionIndex[] = "POSITION_INDEX";
inline constexpr char kTokensUsed[] = "TOKENS_USED";

struct TensorContract {
  std::string_view name;
  std::string_view datatype;   // What metadata says; TOKENS may be INT32 as well.
  std::vector<int64_t> shape;  // -1: any length.
  bool has_batch = false;      // The first size is the number of prompts.
  bool optional = false;       // Inputs: may be left out. Outputs: there only when asked for.
};

std::span<const TensorContract> InputTensors();
std::span<const TensorContract> OutputTensors();

// Null when there is none of that name.
const TensorContract* FindTensor(std::span<const TensorContract> tensors, std::string_view name);

}  // namespace ess::inference
