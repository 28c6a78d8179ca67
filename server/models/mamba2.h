// Mamba-2 and Codestral-Mamba: model_type `mamba2`.
#pragma once

#include "server/models/architecture.h"

namespace ess::models {

// A recurrence with one gate per head and position in each layer, its output gated and normalised.
// Source: Dao and Gu 2024 (arXiv:2405.21060); transformers' modeling_mamba2.py.
Architecture Mamba2Architecture();

}  // namespace ess::models
