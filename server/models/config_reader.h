// Typed, checked access to config.json.
//
// An explicit null counts as absent, but where a method says otherwise: released files write null
// for "the default".
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace ess::models {

// The largest width, vocabulary or position count that a config may ask for. Products of
// two such sizes and an element size fit into 64 bits.
inline constexpr int64_t kMaxConfigSize = int64_t{1} << 24;

// The most layers: what there is of each is laid out before the first tensor is taken.
inline constexpr int64_t kMaxLayers = 4096;

// The keys of a translated config, and what stands for each in the file: "hidden_size" is
// "d_model".
using KeyNames = std::map<std::string, std::string, std::less<>>;

// One JSON object of the file. Errors of all methods:
//   kDataLoss            a value of the wrong JSON type, or absent without a default.
//   kFailedPrecondition  a value out of range or not supported.
// Messages name the file and the key with its path ("rope_scaling.factor"), the value, and what is
// accepted. Refers to the JSON value and to the names, which must outlive it.
class ConfigReader {
 public:
  // `path` is "" for the file itself, else the key of this object in it. `names`: of the keys that
  // the file spells otherwise; null: none.
  explicit ConfigReader(const nlohmann::json& object, std::string path = "",
                        std::string file = "config.json", const KeyNames* names = nullptr)
      : object_(&object), path_(std::move(path)), file_(std::move(file)), names_(names) {}

  // Present and not null.
  bool Has(std::string_view key) const { return Find(key) != nullptr; }

  // Present, and null.
  bool IsNull(std::string_view key) const;

  // Whether the object has no keys.
  bool empty() const { return object_->empty(); }

  // An integer in [1, maximum].
  absl::StatusOr<int64_t> Size(std::string_view key, std::optional<int64_t> default_value,
                               int64_t maximum = kMaxConfigSize) const;

  // An integer in [0, maximum].
  absl::StatusOr<int64_t> Count(std::string_view key, int64_t default_value,
                                int64_t maximum = kMaxConfigSize) const;

  // A size, or 0 where the file says null.
  absl::StatusOr<int64_t> SizeOrNone(std::string_view key, int64_t default_value) const;

  // A size, also written as a list of `count` times one integer.
  absl::StatusOr<int64_t> SameSize(std::string_view key, int64_t count,
                                   int64_t default_value) const;

  // A size under either of two names; both present with different values: kDataLoss.
  absl::StatusOr<int64_t> Size(std::string_view key, std::string_view alias,
                               std::optional<int64_t> default_value,
                               int64_t maximum = kMaxConfigSize) const;

  // The size under `key` times `factor`, which is that of `factor_key`: at most kMaxConfigSize.
  absl::StatusOr<int64_t> SizeTimes(std::string_view key, int64_t default_value,
                                    std::string_view factor_key, int64_t factor) const;

  // A finite number in [minimum, maximum]; integers are accepted.
  absl::StatusOr<double> Number(std::string_view key, std::optional<double> default_value,
                                double minimum, double maximum) const;

  absl::StatusOr<bool> Bool(std::string_view key, std::optional<bool> default_value) const;

  absl::StatusOr<std::string> String(std::string_view key,
                                     std::optional<std::string> default_value) const;

  // One of `supported`.
  absl::StatusOr<std::string> Choice(std::string_view key, std::optional<std::string> default_value,
                                     const std::vector<std::string>& supported) const;

  // `count` strings, each one of `supported`.
  absl::StatusOr<std::vector<std::string>> Choices(std::string_view key, int64_t count,
                                                   const std::vector<std::string>& supported) const;

  // Any number of integers in [0, count). Absent: none.
  absl::StatusOr<std::vector<int64_t>> Indices(std::string_view key, int64_t count) const;

  // `count` numbers in [minimum, maximum].
  absl::StatusOr<std::vector<double>> Numbers(std::string_view key, int64_t count, double minimum,
                                              double maximum) const;

  // [low, high] with low <= high; either may be an infinity, which Python writes as a bare word and
  // transformers 5 as {"__float__": "Infinity"}. Absent: both infinite.
  absl::StatusOr<std::pair<double, double>> Bounds(std::string_view key) const;

  // Absent: nullopt.
  absl::StatusOr<std::optional<ConfigReader>> Object(std::string_view key) const;

  // One object, or a list of objects: "attn", or "attn[0]", "attn[1]", ... Absent: none.
  absl::StatusOr<std::vector<ConfigReader>> Objects(std::string_view key) const;

  // OK when the key is absent or false.
  absl::Status RefuseTrue(std::string_view key) const;

  // The key as the file spells it: "rope_scaling.factor".
  std::string Name(std::string_view key) const;

  // kFailedPrecondition: "FILE: KEY is VALUE; supported: SUPPORTED".
  absl::Status Unsupported(std::string_view key, std::string_view supported) const;

  // The same of a value that several keys make.
  absl::Status UnsupportedValue(std::string_view name, double value,
                                std::string_view supported) const;

  // kDataLoss: "FILE: REASON", for values that contradict each other.
  absl::Status Contradiction(std::string_view reason) const;

  // kDataLoss unless the divisor divides the value: "FILE: KEY is VALUE, not a multiple of
  // DIVISOR_KEY = DIVISOR". REQUIRES: divisor > 0.
  absl::Status CheckMultiple(std::string_view key, int64_t value, std::string_view divisor_key,
                             int64_t divisor) const;

 private:
  const nlohmann::json* Find(std::string_view key) const;
  // An integer in [minimum, maximum].
  absl::StatusOr<int64_t> Integer(std::string_view key, std::optional<int64_t> default_value,
                                  int64_t minimum, int64_t maximum) const;
  // A list of `count` entries of one JSON type.
  absl::StatusOr<const nlohmann::json*> List(std::string_view key, int64_t count,
                                             bool (nlohmann::json::*is_right)() const,
                                             std::string_view expected) const;
  absl::Status Missing(std::string_view key) const;
  absl::Status WrongType(std::string_view key, std::string_view expected) const;
  std::string ShownValue(std::string_view key) const;

  const nlohmann::json* object_;
  std::string path_;
  std::string file_;
  const KeyNames* names_;
};

}  // namespace ess::models
