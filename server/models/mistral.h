// Mistral and Mistral-Nemo: model_type `mistral`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Llama's blocks with a sliding window over all layers, where the config has one.
// Source: Jiang et al. 2023 (arXiv:2310.06825); transformers' modeling_mistral.py.
Architecture MistralArchitecture();

}  // namespace ess::models
