#include "server/models/architectures.h"

#include <vector>

#include "server/models/gpt2.h"
#include "server/models/llama.h"

namespace ess::models {

std::span<const Architecture> Architectures() {
  static const auto& architectures = *new std::vector<Architecture>{
      Gpt2Architecture(),
      LlamaArchitecture(),
  };
  return architectures;
}

const Architecture* FindArchitecture(std::string_view model_type) {
  for (const Architecture& architecture : Architectures()) {
    if (architecture.model_type == model_type) return &architecture;
  }
  return nullptr;
}

}  // namespace ess::models
