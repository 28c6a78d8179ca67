// Flags and configuration file -> ServerConfig.
#pragma once

#include "absl/status/statusor.h"
#include "ess/v1/server.pb.h"

namespace ess {

// Parses the command line, reads --config, lets flags override its fields, and fills in defaults.
// --help, --version and --new_token print and end the process.
// Errors: kInvalidArgument  an unknown flag or argument, a file that cannot be read or does not
//         parse, a value outside its range: names the field, and the line in the file.
absl::StatusOr<v1::ServerConfig> ReadServerConfig(int argc, char** argv);

}  // namespace ess
