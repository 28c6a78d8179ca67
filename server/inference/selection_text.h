// Selections as text: "0,4-7", "0-511:8", and for layers also names, "007.attention". The same
// grammar as client/ess_client/selection.py.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/pipeline/profile_job.h"

namespace ess::inference {

// The parts of a list that commas separate, without the blanks around them.
std::vector<std::string> SplitList(std::string_view text);

// Errors: kInvalidArgument  names `field` and the part that is not a range.
absl::StatusOr<IndexSelection> ParseIndices(std::string_view text, const std::string& field);

// A part of three digits and more, alone or with ".kind", is the name of an operator.
absl::StatusOr<LayerSelection> ParseLayers(std::string_view text);

}  // namespace ess::inference
