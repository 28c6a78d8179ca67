// What this build is.
#pragma once

namespace ess {

extern const char kVersion[];  // "0.1.0"
extern const char kCommit[];   // Short git commit, or "unknown".

}  // namespace ess
