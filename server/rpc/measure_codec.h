// Messages <-> domain types: measures, their options, selections.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ess/v1/measures.pb.h"
#include "server/ess/ess_engine.h"
#include "server/ess/measure.h"
#include "server/operators/state_size.h"
#include "server/pipeline/reduction.h"
#include "server/pipeline/selection.h"

namespace ess::rpc {

// The measures of a request; `defaults` when it names none.
// Errors: kInvalidArgument  too many, one twice, or one that DecodeMeasure refuses.
absl::StatusOr<std::vector<Measure>> DecodeMeasures(
    const google::protobuf::RepeatedPtrField<v1::Measure>& measures,
    const std::vector<Measure>& defaults);

// Errors: kInvalidArgument  a horizon below 1, or a Reduction that is none.
absl::StatusOr<EssOptions> DecodeEssOptions(const v1::MeasureOptions& options);
absl::StatusOr<Reduction> DecodeReduction(const v1::MeasureOptions& options);
void EncodeMeasureOptions(const EssOptions& options, Reduction reduction,
                          v1::MeasureOptions* message);

// Errors: kInvalidArgument  as ValidateSelection.
absl::StatusOr<IndexSelection> DecodeSelection(
    const google::protobuf::RepeatedPtrField<v1::IndexRange>& ranges, const std::string& field);

// Errors: kInvalidArgument  a kind that is not set or a value outside its range.
absl::StatusOr<Measure> DecodeMeasure(const v1::Measure& measure, const std::string& field);
void EncodeMeasure(const Measure& measure, v1::Measure* message);

// Ascending indices as ranges, runs of equal stride joined.
void EncodeIndices(const std::vector<int64_t>& indices, v1::IndexSelection* message);

void EncodeStateSize(const operators::StateSize& state_size, v1::StateSize* message);

}  // namespace ess::rpc
