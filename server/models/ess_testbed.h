// The paper's own sequence mixers in one small model, trained by `ess_client.testbed`: blocks of a
// mixer and a feed-forward, each mixer of its own kind. docs/testbed.md describes config.json.
// Source: Parnichkun et al. 2025 (arXiv:2504.19561), appendix D.2.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

Architecture EssTestbedArchitecture();

}  // namespace ess::models
