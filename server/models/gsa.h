// Gated slot attention in flash-linear-attention's layout: model_type `gsa`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Two gated linear attentions with a softmax over memory slots between them. The operator is that
// of the second, from values to outputs: its queries are what the softmax makes. Source: Zhang et
// al. 2024 (arXiv:2409.07146); flash-linear-attention's layers/gsa.py.
Architecture GsaArchitecture();

}  // namespace ess::models
