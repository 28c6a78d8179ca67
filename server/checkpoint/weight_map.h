// The weights of a checkpoint folder by name, from one safetensors file or from shards.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace ess::checkpoint {

class SafetensorsFile;

// Every tensor is taken once, with the shape the config implies; what nobody took is an error.
// Not thread-safe.
class WeightMap {
 public:
  // Opens model.safetensors, else the shards of model.safetensors.index.json, else
  // consolidated.safetensors. Nothing is read but the headers. Weights go to `device` as float32,
  // or as stored.
  // Errors: kDataLoss  no weights, a broken header or index, a shard outside the folder.
  static absl::StatusOr<WeightMap> Open(const std::filesystem::path& folder,
                                        std::string_view device, bool as_stored);
  ~WeightMap();
  WeightMap(WeightMap&&);

  // Strips the first of these prefixes ("model.", "transformer.") that some tensor has; names that
  // lack it keep their name ("lm_head.weight").
  void StripPrefix(const std::vector<std::string>& prefixes);

  // Leaves tensors out whose name ends like this (buffers such as ".attn.bias").
  void IgnoreSuffix(std::string_view suffix);

  // The same for names that start like this.
  void IgnorePrefix(std::string_view prefix);

  bool Has(std::string_view name) const;

  // Errors: kDataLoss  missing, or of another shape: names the tensor, found and expected.
  absl::StatusOr<at::Tensor> Take(std::string_view name, at::IntArrayRef shape);

  // Errors: kDataLoss  tensors that were never taken, by name.
  absl::Status CheckAllTaken() const;

  // Upper bound of what taking every tensor needs: all of them in their final type, and the largest
  // that is converted once more.
  int64_t LoadBytes() const;

  // Of what was taken.
  int64_t bytes() const;
  int64_t parameters() const;
  std::string dtype() const;  // "float32", "bfloat16", "float16" of the largest share.

 private:
  struct State;
  explicit WeightMap(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ess::checkpoint
