#include "server/rpc/measure_codec.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "server/base/status_macros.h"

namespace ess::rpc {
namespace {

constexpr int kMaxMeasures = 64;

}  // namespace

absl::StatusOr<Measure> DecodeMeasure(const v1::Measure& message, const std::string& field) {
  using Kind = Measure::Kind;
  Measure measure;
  switch (message.kind_case()) {
    case v1::Measure::kTolerance:
      measure = {.kind = Kind::kTolerance, .value = message.tolerance()};
      break;
    case v1::Measure::kRelative:
      measure = {.kind = Kind::kRelative, .value = message.relative()};
      break;
    case v1::Measure::kHeadRelative:
      measure = {.kind = Kind::kHeadRelative, .value = message.head_relative()};
      break;
    case v1::Measure::kEntropy:
      measure = {.kind = Kind::kEntropy};
      break;
    case v1::Measure::kSpectralNorm:
      measure = {.kind = Kind::kSpectralNorm};
      break;
    case v1::Measure::kFrobeniusNorm:
      measure = {.kind = Kind::kFrobeniusNorm};
      break;
    case v1::Measure::kSingularValues:
      measure = {.kind = Kind::kSingularValues, .count = message.singular_values()};
      break;
    case v1::Measure::kCausal:
      measure = {.kind = Kind::kCausal};
      break;
    case v1::Measure::KIND_NOT_SET:
      return absl::InvalidArgumentError(
          fmt::format("{}: no measure is set, or one this server does not know", field));
  }
  const absl::Status valid = ValidateMeasure(measure);
  if (!valid.ok()) {
    return absl::Status(valid.code(), fmt::format("{}: {}", field, std::string(valid.message())));
  }
  return measure;
}

void EncodeMeasure(const Measure& measure, v1::Measure* message) {
  switch (measure.kind) {
    case Measure::Kind::kTolerance:
      message->set_tolerance(measure.value);
      break;
    case Measure::Kind::kRelative:
      message->set_relative(measure.value);
      break;
    case Measure::Kind::kHeadRelative:
      message->set_head_relative(measure.value);
      break;
    case Measure::Kind::kEntropy:
      message->mutable_entropy();
      break;
    case Measure::Kind::kSpectralNorm:
      message->mutable_spectral_norm();
      break;
    case Measure::Kind::kFrobeniusNorm:
      message->mutable_frobenius_norm();
      break;
    case Measure::Kind::kSingularValues:
      message->set_singular_values(static_cast<int32_t>(measure.count));
      break;
    case Measure::Kind::kCausal:
      message->mutable_causal();
      break;
  }
}

absl::StatusOr<std::vector<Measure>> DecodeMeasures(
    const google::protobuf::RepeatedPtrField<v1::Measure>& messages,
    const std::vector<Measure>& defaults) {
  if (messages.empty()) return defaults;
  if (messages.size() > kMaxMeasures) {
    return absl::InvalidArgumentError(fmt::format(
        "measures: {} measures in one request; the limit is {}", messages.size(), kMaxMeasures));
  }
  std::vector<Measure> measures;
  for (int i = 0; i < messages.size(); ++i) {
    ESS_ASSIGN_OR_RETURN(const Measure measure,
                         DecodeMeasure(messages[i], fmt::format("measures[{}]", i)));
    if (std::find(measures.begin(), measures.end(), measure) != measures.end()) {
      return absl::InvalidArgumentError(
          fmt::format("measures[{}]: '{}' is there twice", i, FormatMeasure(measure)));
    }
    measures.push_back(measure);
  }
  return measures;
}

absl::StatusOr<EssOptions> DecodeEssOptions(const v1::MeasureOptions& options) {
  EssOptions decoded{.horizon = std::nullopt, .certify = options.certify()};
  if (options.has_horizon()) {
    if (options.horizon() < 1) {
      return absl::InvalidArgumentError(fmt::format(
          "options.horizon: {} is not allowed; it must be at least 1", options.horizon()));
    }
    decoded.horizon = options.horizon();
  }
  return decoded;
}

absl::StatusOr<Reduction> DecodeReduction(const v1::MeasureOptions& options) {
  switch (options.reduction()) {
    case v1::REDUCTION_UNSPECIFIED:
      return Reduction::kNone;
    case v1::REDUCTION_HEADS:
      return Reduction::kHeads;
    case v1::REDUCTION_POSITIONS:
      return Reduction::kPositions;
    default:
      return absl::InvalidArgumentError(fmt::format("options.reduction: {} is not a Reduction",
                                                    static_cast<int>(options.reduction())));
  }
}

void EncodeMeasureOptions(const EssOptions& options, Reduction reduction,
                          v1::MeasureOptions* message) {
  if (options.horizon) message->set_horizon(*options.horizon);
  message->set_certify(options.certify);
  switch (reduction) {
    case Reduction::kNone:
      break;
    case Reduction::kHeads:
      message->set_reduction(v1::REDUCTION_HEADS);
      break;
    case Reduction::kPositions:
      message->set_reduction(v1::REDUCTION_POSITIONS);
      break;
  }
}

absl::StatusOr<IndexSelection> DecodeSelection(
    const google::protobuf::RepeatedPtrField<v1::IndexRange>& ranges, const std::string& field) {
  IndexSelection selection;
  for (const v1::IndexRange& range : ranges) {
    selection.ranges.push_back({.first = range.first(),
                                .last = range.last(),
                                .stride = range.stride() == 0 ? 1 : range.stride()});
  }
  ESS_RETURN_IF_ERROR(ValidateSelection(selection, field));
  return selection;
}

void EncodeIndices(const std::vector<int64_t>& indices, v1::IndexSelection* message) {
  for (size_t begin = 0; begin < indices.size();) {
    size_t end = begin + 1;
    const int64_t stride = end < indices.size() ? indices[end] - indices[begin] : 1;
    while (end < indices.size() && indices[end] - indices[end - 1] == stride) ++end;
    v1::IndexRange* range = message->add_ranges();
    range->set_first(indices[begin]);
    range->set_last(indices[end - 1]);
    range->set_stride(stride);
    begin = end;
  }
}

void EncodeStateSize(const operators::StateSize& state_size, v1::StateSize* message) {
  switch (state_size.kind) {
    case operators::StateSize::Kind::kGrowing:
      message->mutable_growing();
      break;
    case operators::StateSize::Kind::kGrowingUpTo:
      message->set_growing_up_to(state_size.size);
      break;
    case operators::StateSize::Kind::kConstant:
      message->set_constant(state_size.size);
      break;
  }
}

}  // namespace ess::rpc
