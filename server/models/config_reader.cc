#include "server/models/config_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/base/cut_text.h"
#include "server/base/status_macros.h"

namespace ess::models {
namespace {

constexpr size_t kMaxShownCharacters = 80;

bool InRange(double value, double minimum, double maximum) {
  return std::isfinite(value) && value >= minimum && value <= maximum;
}

}  // namespace

const nlohmann::json* ConfigReader::Find(std::string_view key) const {
  const auto entry = object_->find(key);
  return entry == object_->end() || entry->is_null() ? nullptr : &*entry;
}

bool ConfigReader::IsNull(std::string_view key) const {
  const auto entry = object_->find(key);
  return entry != object_->end() && entry->is_null();
}

std::string ConfigReader::Name(std::string_view key) const {
  std::string name = path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
  if (names_ == nullptr) return name;
  const auto written = names_->find(name);
  return written == names_->end() ? name : written->second;
}

std::string ConfigReader::ShownValue(std::string_view key) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return "absent";
  return CutText(
      value->dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace),
      kMaxShownCharacters);
}

absl::Status ConfigReader::Missing(std::string_view key) const {
  return absl::DataLossError(fmt::format("{}: {} is missing", file_, Name(key)));
}

absl::Status ConfigReader::WrongType(std::string_view key, std::string_view expected) const {
  return absl::DataLossError(
      fmt::format("{}: {} is {}; expected {}", file_, Name(key), ShownValue(key), expected));
}

absl::Status ConfigReader::Unsupported(std::string_view key, std::string_view supported) const {
  return absl::FailedPreconditionError(
      fmt::format("{}: {} is {}; supported: {}", file_, Name(key), ShownValue(key), supported));
}

absl::StatusOr<int64_t> ConfigReader::Integer(std::string_view key,
                                              std::optional<int64_t> default_value, int64_t minimum,
                                              int64_t maximum) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (!default_value.has_value()) return Missing(key);
    return *default_value;
  }
  if (!value->is_number_integer()) return WrongType(key, "an integer");
  // Unsigned values above 2^63 would wrap: compare before the conversion.
  const bool too_large =
      value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(maximum);
  if (too_large || value->get<int64_t>() < minimum || value->get<int64_t>() > maximum) {
    return Unsupported(key, fmt::format("{} to {}", minimum, maximum));
  }
  return value->get<int64_t>();
}

absl::StatusOr<int64_t> ConfigReader::Size(std::string_view key,
                                           std::optional<int64_t> default_value,
                                           int64_t maximum) const {
  return Integer(key, default_value, /*minimum=*/1, maximum);
}

absl::StatusOr<int64_t> ConfigReader::Count(std::string_view key, int64_t default_value,
                                            int64_t maximum) const {
  return Integer(key, default_value, /*minimum=*/0, maximum);
}

absl::StatusOr<int64_t> ConfigReader::SizeOrNone(std::string_view key,
                                                 int64_t default_value) const {
  if (IsNull(key)) return 0;
  return Size(key, default_value);
}

absl::StatusOr<int64_t> ConfigReader::SameSize(std::string_view key, int64_t count,
                                               int64_t default_value) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr || !value->is_array()) return Size(key, default_value);
  ESS_ASSIGN_OR_RETURN(const std::vector<double> sizes, Numbers(key, count, 1, kMaxConfigSize));
  const double first = sizes.front();
  const bool same = std::all_of(sizes.begin(), sizes.end(), [=](double x) { return x == first; });
  if (!same || first != std::floor(first)) return Unsupported(key, "one integer for all");
  return static_cast<int64_t>(first);
}

absl::StatusOr<int64_t> ConfigReader::Size(std::string_view key, std::string_view alias,
                                           std::optional<int64_t> default_value,
                                           int64_t maximum) const {
  if (!Has(alias)) return Size(key, default_value, maximum);
  ESS_ASSIGN_OR_RETURN(const int64_t by_alias, Size(alias, std::nullopt, maximum));
  ESS_ASSIGN_OR_RETURN(const int64_t by_key, Size(key, by_alias, maximum));
  if (by_key != by_alias) {
    return Contradiction(
        fmt::format("{} is {} but {} is {}", Name(key), by_key, Name(alias), by_alias));
  }
  return by_key;
}

absl::StatusOr<int64_t> ConfigReader::SizeTimes(std::string_view key, int64_t default_value,
                                                std::string_view factor_key, int64_t factor) const {
  ESS_ASSIGN_OR_RETURN(const int64_t size, Size(key, default_value));
  if (size <= kMaxConfigSize / factor) return size * factor;
  return Unsupported(key,
                     fmt::format("{} * {} up to {}", Name(key), Name(factor_key), kMaxConfigSize));
}

absl::StatusOr<double> ConfigReader::Number(std::string_view key,
                                            std::optional<double> default_value, double minimum,
                                            double maximum) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (!default_value.has_value()) return Missing(key);
    return *default_value;
  }
  if (!value->is_number()) return WrongType(key, "a number");
  if (!InRange(value->get<double>(), minimum, maximum)) {
    return Unsupported(key, fmt::format("{} to {}", minimum, maximum));
  }
  return value->get<double>();
}

absl::StatusOr<bool> ConfigReader::Bool(std::string_view key,
                                        std::optional<bool> default_value) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (!default_value.has_value()) return Missing(key);
    return *default_value;
  }
  if (!value->is_boolean()) return WrongType(key, "true or false");
  return value->get<bool>();
}

absl::StatusOr<std::string> ConfigReader::String(std::string_view key,
                                                 std::optional<std::string> default_value) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (!default_value.has_value()) return Missing(key);
    return *default_value;
  }
  if (!value->is_string()) return WrongType(key, "a string");
  return value->get<std::string>();
}

absl::StatusOr<std::string> ConfigReader::Choice(std::string_view key,
                                                 std::optional<std::string> default_value,
                                                 const std::vector<std::string>& supported) const {
  ESS_ASSIGN_OR_RETURN(std::string value, String(key, std::move(default_value)));
  if (std::find(supported.begin(), supported.end(), value) == supported.end()) {
    return Unsupported(key, fmt::format("{}", fmt::join(supported, ", ")));
  }
  return value;
}

absl::StatusOr<const nlohmann::json*> ConfigReader::List(std::string_view key, int64_t count,
                                                         bool (nlohmann::json::*is_right)() const,
                                                         std::string_view expected) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return Missing(key);
  const auto right = [is_right](const nlohmann::json& entry) { return (entry.*is_right)(); };
  if (!value->is_array() || !std::all_of(value->begin(), value->end(), right)) {
    return WrongType(key, expected);
  }
  if (static_cast<int64_t>(value->size()) != count) {
    return Contradiction(
        fmt::format("{} has {} entries; expected {}", Name(key), value->size(), count));
  }
  return value;
}

absl::StatusOr<std::vector<std::string>> ConfigReader::Choices(
    std::string_view key, int64_t count, const std::vector<std::string>& supported) const {
  ESS_ASSIGN_OR_RETURN(const nlohmann::json* const list,
                       List(key, count, &nlohmann::json::is_string, "a list of strings"));
  auto choices = list->get<std::vector<std::string>>();
  for (const std::string& choice : choices) {
    if (std::find(supported.begin(), supported.end(), choice) == supported.end()) {
      return Unsupported(key, fmt::format("entries {}", fmt::join(supported, ", ")));
    }
  }
  return choices;
}

absl::StatusOr<std::vector<int64_t>> ConfigReader::Indices(std::string_view key,
                                                           int64_t count) const {
  std::vector<int64_t> indices;
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return indices;
  if (!value->is_array()) return WrongType(key, "a list of integers");
  for (const nlohmann::json& entry : *value) {
    if (!entry.is_number_integer()) return WrongType(key, "a list of integers");
    if (!InRange(entry.get<double>(), 0, static_cast<double>(count - 1))) {
      return Unsupported(key, fmt::format("entries from 0 to {}", count - 1));
    }
    indices.push_back(entry.get<int64_t>());
  }
  return indices;
}

absl::StatusOr<std::vector<double>> ConfigReader::Numbers(std::string_view key, int64_t count,
                                                          double minimum, double maximum) const {
  ESS_ASSIGN_OR_RETURN(const nlohmann::json* const list,
                       List(key, count, &nlohmann::json::is_number, "a list of numbers"));
  auto numbers = list->get<std::vector<double>>();
  for (const double number : numbers) {
    if (!InRange(number, minimum, maximum)) {
      return Unsupported(key, fmt::format("entries from {} to {}", minimum, maximum));
    }
  }
  return numbers;
}

absl::StatusOr<std::pair<double, double>> ConfigReader::Bounds(std::string_view key) const {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return std::pair(-kInfinity, kInfinity);
  std::vector<double> bounds;
  for (const nlohmann::json& entry : *value) {
    const nlohmann::json& written =
        entry.is_object() && entry.contains("__float__") ? entry["__float__"] : entry;
    if (written.is_number()) {
      bounds.push_back(written.get<double>());
    } else if (written == "Infinity") {
      bounds.push_back(kInfinity);
    } else if (written == "-Infinity") {
      bounds.push_back(-kInfinity);
    }
  }
  if (!value->is_array() || value->size() != 2 || bounds.size() != 2 || bounds[0] > bounds[1]) {
    return WrongType(key, "a list of a lower and an upper bound");
  }
  return std::pair(bounds[0], bounds[1]);
}

absl::StatusOr<std::optional<ConfigReader>> ConfigReader::Object(std::string_view key) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) return WrongType(key, "an object");
  return ConfigReader(*value, Name(key), file_, names_);
}

absl::StatusOr<std::vector<ConfigReader>> ConfigReader::Objects(std::string_view key) const {
  std::vector<ConfigReader> objects;
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return objects;
  if (value->is_object()) {
    objects.emplace_back(*value, Name(key), file_, names_);
    return objects;
  }
  if (!value->is_array()) return WrongType(key, "an object or a list of objects");
  for (const nlohmann::json& entry : *value) {
    if (!entry.is_object()) return WrongType(key, "an object or a list of objects");
    objects.emplace_back(entry, fmt::format("{}[{}]", Name(key), objects.size()), file_, names_);
  }
  return objects;
}

absl::Status ConfigReader::RefuseTrue(std::string_view key) const {
  ESS_ASSIGN_OR_RETURN(const bool value, Bool(key, false));
  return value ? Unsupported(key, "false") : absl::OkStatus();
}

absl::Status ConfigReader::UnsupportedValue(std::string_view name, double value,
                                            std::string_view supported) const {
  return absl::FailedPreconditionError(
      fmt::format("{}: {} is {}; supported: {}", file_, name, value, supported));
}

absl::Status ConfigReader::Contradiction(std::string_view reason) const {
  return absl::DataLossError(fmt::format("{}: {}", file_, reason));
}

absl::Status ConfigReader::CheckMultiple(std::string_view key, int64_t value,
                                         std::string_view divisor_key, int64_t divisor) const {
  if (value % divisor == 0) return absl::OkStatus();
  return Contradiction(fmt::format("{} is {}, not a multiple of {} = {}", Name(key), value,
                                   Name(divisor_key), divisor));
}

}  // namespace ess::models
