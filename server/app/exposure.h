// Which addresses others can reach, and what they then need.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "ess/v1/server.pb.h"

namespace ess {

// Whether HOST:PORT can be reached from this machine only: 127.0.0.0/8, ::1 and localhost. Any
// other name of a host may mean any address.
bool IsLoopback(const std::string& address);

// Refuses addresses that others reach without TLS and without knowing who calls, unless the
// configuration says that this is meant.
// Errors: kInvalidArgument  says in plain words what is missing, and which field allows it.
absl::Status CheckExposure(const v1::ServerConfig& config);

// Whether reflection is served.
bool ServesReflection(const v1::ServerConfig& config);

}  // namespace ess
