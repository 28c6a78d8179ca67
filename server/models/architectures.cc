#include "server/models/architectures.h"

#include <vector>

#include "server/models/bamba.h"
#include "server/models/deepseek_v2.h"
#include "server/models/deepseek_v3.h"
#include "server/models/delta_net.h"
#include "server/models/ess_testbed.h"
#include "server/models/falcon.h"
#include "server/models/falcon_h1.h"
#include "server/models/gated_deltanet.h"
#include "server/models/gemma.h"
#include "server/models/gemma2.h"
#include "server/models/gemma3.h"
#include "server/models/gla.h"
#include "server/models/gpt2.h"
#include "server/models/gpt_neox.h"
#include "server/models/granite_moe_hybrid.h"
#include "server/models/gsa.h"
#include "server/models/hgrn2.h"
#include "server/models/jamba.h"
#include "server/models/lfm2.h"
#include "server/models/linear_attn.h"
#include "server/models/llama.h"
#include "server/models/mamba.h"
#include "server/models/mamba2.h"
#include "server/models/mistral.h"
#include "server/models/mixtral.h"
#include "server/models/phi.h"
#include "server/models/phi3.h"
#include "server/models/qwen2.h"
#include "server/models/qwen3.h"
#include "server/models/qwen3_moe.h"
#include "server/models/qwen3_next.h"
#include "server/models/retnet.h"
#include "server/models/rwkv6.h"
#include "server/models/rwkv7.h"
#include "server/models/s4d.h"

namespace ess::models {

std::span<const Architecture> Architectures() {
  // One line each, whatever fits.
  // clang-format off
  static const auto& architectures = *new std::vector<Architecture>{
      BambaArchitecture(),
      DeepseekV2Architecture(),
      DeepseekV3Architecture(),
      DeltaNetArchitecture(),
      EssTestbedArchitecture(),
      FalconArchitecture(),
      FalconH1Architecture(),
      FalconMambaArchitecture(),
      GatedDeltanetArchitecture(),
      GemmaArchitecture(),
      Gemma2Architecture(),
      Gemma3Architecture(),
      GlaArchitecture(),
      Gpt2Architecture(),
      GptNeoxArchitecture(),
      GraniteMoeHybridArchitecture(),
      GsaArchitecture(),
      Hgrn2Architecture(),
      JambaArchitecture(),
      Lfm2Architecture(),
      LinearAttnArchitecture(),
      LlamaArchitecture(),
      MambaArchitecture(),
      Mamba2Architecture(),
      MistralArchitecture(),
      MixtralArchitecture(),
      PhiArchitecture(),
      Phi3Architecture(),
      Qwen2Architecture(),
      Qwen3Architecture(),
      Qwen35TextArchitecture(),
      Qwen3MoeArchitecture(),
      Qwen3NextArchitecture(),
      RetnetArchitecture(),
      Rwkv6Architecture(),
      Rwkv7Architecture(),
      S4dArchitecture(),
  };
  // clang-format on
  return architectures;
}

const Architecture* FindArchitecture(std::string_view model_type) {
  for (const Architecture& architecture : Architectures()) {
    if (architecture.model_type == model_type) return &architecture;
  }
  return nullptr;
}

}  // namespace ess::models
