#include "server/inference/infer_parameters.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/base/cut_text.h"
#include "server/base/status_macros.h"
#include "server/inference/selection_text.h"

namespace ess::inference {
namespace {

constexpr size_t kMaxMeasures = 64;
constexpr size_t kMaxNameBytes = 64;  // Of a name that is compared with ours, or quoted.

absl::Status WrongType(const std::string& name, const char* expected, const InferParameter& value) {
  static constexpr const char* kKinds[] = {"nothing",        "a bool_param",   "an int64_param",
                                           "a string_param", "a double_param", "a uint64_param"};
  return absl::InvalidArgumentError(
      fmt::format("parameters: '{}' is {}; {} is expected", name,
                  kKinds[static_cast<int>(value.parameter_choice_case())], expected));
}

// Every kind of integer is taken where one is wanted.
absl::StatusOr<int64_t> Integer(const std::string& name, const InferParameter& value) {
  if (value.parameter_choice_case() == InferParameter::kInt64Param) return value.int64_param();
  if (value.parameter_choice_case() != InferParameter::kUint64Param) {
    return WrongType(name, "an int64_param", value);
  }
  constexpr uint64_t kMost = std::numeric_limits<int64_t>::max();
  return static_cast<int64_t>(std::min(value.uint64_param(), kMost));
}

absl::StatusOr<bool> Boolean(const std::string& name, const InferParameter& value) {
  if (value.parameter_choice_case() == InferParameter::kBoolParam) return value.bool_param();
  return WrongType(name, "a bool_param", value);
}

// A selection; a single index may be an integer.
absl::StatusOr<std::string> Text(const std::string& name, const InferParameter& value) {
  if (value.parameter_choice_case() == InferParameter::kStringParam) return value.string_param();
  if (value.parameter_choice_case() == InferParameter::kInt64Param ||
      value.parameter_choice_case() == InferParameter::kUint64Param) {
    ESS_ASSIGN_OR_RETURN(const int64_t index, Integer(name, value));
    return std::to_string(index);
  }
  return WrongType(name, "a string_param such as \"0,4-7\"", value);
}

absl::Status DecodeMeasures(const std::string& name, const InferParameter& value,
                            InferParameters& decoded) {
  if (value.parameter_choice_case() != InferParameter::kStringParam) {
    return WrongType(name, "a string_param such as \"tolerance:1e-3,entropy\"", value);
  }
  for (const std::string& part : SplitList(value.string_param())) {
    absl::StatusOr<Measure> measure = ParseMeasure(part);
    if (!measure.ok()) {
      return absl::Status(measure.status().code(),
                          fmt::format("measures: {}", std::string(measure.status().message())));
    }
    if (measure->kind == Measure::Kind::kSingularValues) {
      return absl::InvalidArgumentError(
          "measures: singular_values has an axis of its own, which the tensor ESS has not; "
          "ess.v1.EssProfiler/Profile answers it");
    }
    auto& measures = decoded.measures;
    if (std::find(measures.begin(), measures.end(), *measure) != measures.end()) {
      return absl::InvalidArgumentError(
          fmt::format("measures: '{}' is there twice", FormatMeasure(*measure)));
    }
    measures.push_back(*measure);
    if (measures.size() > kMaxMeasures) {
      return absl::InvalidArgumentError(
          fmt::format("measures: more than {} in one request", kMaxMeasures));
    }
  }
  return absl::OkStatus();
}

absl::Status DecodeHorizon(const std::string& name, const InferParameter& value,
                           InferParameters& decoded) {
  ESS_ASSIGN_OR_RETURN(const int64_t horizon, Integer(name, value));
  if (horizon < 1) {
    return absl::InvalidArgumentError(
        fmt::format("parameters: horizon: {} is not allowed; it must be at least 1", horizon));
  }
  decoded.options.horizon = horizon;
  return absl::OkStatus();
}

// As the protocol's clients count: the smaller the sooner, 0 for the default.
absl::Status DecodePriority(const std::string& name, const InferParameter& value,
                            InferParameters& decoded) {
  ESS_ASSIGN_OR_RETURN(const int64_t level, Integer(name, value));
  if (level < 0 || level > 2) {
    return absl::InvalidArgumentError(fmt::format(
        "parameters: priority: {} is not one; 0 and 1 are normal, 2 waits for those", level));
  }
  decoded.priority = level == 2 ? admission::Priority::kLow : admission::Priority::kNormal;
  return absl::OkStatus();
}

absl::Status DecodeTimeout(const std::string& name, const InferParameter& value,
                           InferParameters& decoded) {
  ESS_ASSIGN_OR_RETURN(const int64_t microseconds, Integer(name, value));
  if (microseconds < 0) {
    return absl::InvalidArgumentError(fmt::format(
        "parameters: timeout: {} is negative; it is the longest wait in the queue in microseconds, "
        "0 for any",
        microseconds));
  }
  if (microseconds > 0) decoded.longest_wait = absl::Microseconds(microseconds);
  return absl::OkStatus();
}

using Decoder = absl::Status (*)(const std::string& name, const InferParameter& value,
                                 InferParameters& decoded);

// THE LIST of parameters.
const std::map<std::string, Decoder>& Decoders() {
  static const std::map<std::string, Decoder> decoders = {
      {"measures", DecodeMeasures},
      {"horizon", DecodeHorizon},
      {"priority", DecodePriority},
      {"timeout", DecodeTimeout},
      {"layers",
       [](const std::string& name, const InferParameter& value, InferParameters& decoded) {
         ESS_ASSIGN_OR_RETURN(const std::string text, Text(name, value));
         ESS_ASSIGN_OR_RETURN(decoded.layers, ParseLayers(text));
         return absl::OkStatus();
       }},
      {"heads",
       [](const std::string& name, const InferParameter& value, InferParameters& decoded) {
         ESS_ASSIGN_OR_RETURN(const std::string text, Text(name, value));
         ESS_ASSIGN_OR_RETURN(decoded.heads, ParseIndices(text, name));
         return absl::OkStatus();
       }},
      {"positions",
       [](const std::string& name, const InferParameter& value, InferParameters& decoded) {
         ESS_ASSIGN_OR_RETURN(const std::string text, Text(name, value));
         ESS_ASSIGN_OR_RETURN(decoded.positions, ParseIndices(text, name));
         return absl::OkStatus();
       }},
      {"certify",
       [](const std::string& name, const InferParameter& value, InferParameters& decoded) {
         ESS_ASSIGN_OR_RETURN(decoded.options.certify, Boolean(name, value));
         return absl::OkStatus();
       }},
      {"add_special_tokens",
       [](const std::string& name, const InferParameter& value, InferParameters& decoded) {
         ESS_ASSIGN_OR_RETURN(decoded.add_special_tokens, Boolean(name, value));
         return absl::OkStatus();
       }},
      // The last answer of a stream has values and the mark: there never is an empty one.
      {"triton_enable_empty_final_response",
       [](const std::string& name, const InferParameter& value, InferParameters&) {
         return Boolean(name, value).status();
       }},
  };
  return decoders;
}

// Insertions, removals and replacements that make one of the other. Cost: the product of sizes.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

// The parameter that is meant, or "".
std::string Meant(const std::string& name) {
  constexpr size_t kMostEdits = 2;
  // What other tools call them.
  if (name == "tolerance" || name == "kind" || name == "measure") return "measures";
  if (name.size() > kMaxNameBytes) return "";
  std::string best;
  size_t least = kMostEdits + 1;
  for (const auto& [known, decoder] : Decoders()) {
    const size_t distance = EditDistance(absl::AsciiStrToLower(name), known);
    if (distance < least) {
      least = distance;
      best = known;
    }
  }
  return best;
}

absl::Status Unknown(const std::string& name) {
  const std::string quoted = CutText(name, kMaxNameBytes);
  if (absl::StartsWith(name, "sequence_")) {
    return absl::InvalidArgumentError(fmt::format(
        "parameters: '{}': requests are independent; there are no stateful sequences", quoted));
  }
  const std::string meant = Meant(name);
  if (!meant.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("parameters: there is no '{}'; did you mean '{}'?", quoted, meant));
  }
  std::vector<std::string> names;
  for (const auto& [known, decoder] : Decoders()) names.push_back(known);
  return absl::InvalidArgumentError(
      fmt::format("parameters: there is no '{}'; there are {}", quoted, fmt::join(names, ", ")));
}

}  // namespace

absl::StatusOr<InferParameters> DecodeInferParameters(const ParameterMap& parameters) {
  InferParameters decoded;
  // In the order of the names, so that the same request gets the same error.
  std::map<std::string_view, const InferParameter*> sorted;
  for (const auto& [name, value] : parameters) sorted.emplace(name, &value);
  for (const auto& [name, value] : sorted) {
    const auto decoder = Decoders().find(std::string(name));
    if (decoder == Decoders().end()) return Unknown(std::string(name));
    ESS_RETURN_IF_ERROR(decoder->second(decoder->first, *value, decoded));
  }
  return decoded;
}

absl::Status RefuseParameters(const std::string& tensor, const ParameterMap& parameters) {
  if (parameters.empty()) return absl::OkStatus();
  std::string first;
  for (const auto& [name, value] : parameters) {
    if (first.empty() || name < first) first = name;
  }
  const std::string quoted = CutText(first, kMaxNameBytes);
  if (absl::StartsWith(first, "shared_memory_")) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: parameter '{}': this server shares no memory; send the contents", tensor, quoted));
  }
  if (first == "classification") {
    return absl::InvalidArgumentError(fmt::format(
        "{}: parameter 'classification': ESS has no classes; this server does not offer it",
        tensor));
  }
  return absl::InvalidArgumentError(
      fmt::format("{}: there is no parameter '{}' of a tensor", tensor, quoted));
}

}  // namespace ess::inference
