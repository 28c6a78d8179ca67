// GPT-NeoX and Pythia: model_type `gpt_neox`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// Attention and feed-forward side by side, rotary positions on the first quarter of each head.
// Source: Black et al. 2022 (arXiv:2204.06745); transformers' modeling_gpt_neox.py.
Architecture GptNeoxArchitecture();

}  // namespace ess::models
