// The text of a configuration file -> ServerConfig.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ess/v1/server.pb.h"

namespace ess {

// Reads protobuf text format. `display_name` stands in messages.
// Errors: kInvalidArgument  does not parse: names the line and column.
absl::StatusOr<v1::ServerConfig> ParseServerConfig(const std::string& text,
                                                   const std::string& display_name);

// Checks ranges and fills in defaults.
// Errors: kInvalidArgument  names the field.
absl::Status CompleteServerConfig(v1::ServerConfig& config);

}  // namespace ess
