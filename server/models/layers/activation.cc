#include "server/models/layers/activation.h"

#include <ATen/ATen.h>

#include "server/base/log.h"

namespace ess::models {
namespace {

void SiluInPlace(at::Tensor& x) { at::silu_(x); }
void GeluInPlace(at::Tensor& x) { at::gelu_(x, "none"); }
// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
void TanhGeluInPlace(at::Tensor& x) { at::gelu_(x, "tanh"); }
void QuickGeluInPlace(at::Tensor& x) { x.mul_(at::sigmoid(x * 1.702)); }
void ReluInPlace(at::Tensor& x) { at::relu_(x); }
void SquaredReluInPlace(at::Tensor& x) { at::relu_(x).square_(); }
void TanhInPlace(at::Tensor& x) { x.tanh_(); }
void SigmoidInPlace(at::Tensor& x) { x.sigmoid_(); }

struct NamedActivation {
  std::string_view name;
  ActivationInPlace apply;
};

constexpr NamedActivation kActivations[] = {
    {"gelu", GeluInPlace},
    {"gelu_fast", TanhGeluInPlace},
    {"gelu_new", TanhGeluInPlace},
    {"gelu_pytorch_tanh", TanhGeluInPlace},
    {"quick_gelu", QuickGeluInPlace},
    {"relu", ReluInPlace},
    {"relu2", SquaredReluInPlace},
    {"sigmoid", SigmoidInPlace},
    {"silu", SiluInPlace},
    {"swish", SiluInPlace},
    {"tanh", TanhInPlace},
};

}  // namespace

std::vector<std::string> ActivationNames() {
  std::vector<std::string> names;
  for (const NamedActivation& activation : kActivations) names.emplace_back(activation.name);
  return names;
}

ActivationInPlace FindActivation(std::string_view name) {
  for (const NamedActivation& activation : kActivations) {
    if (activation.name == name) return activation.apply;
  }
  ESS_CHECK(false && "the config reader let an unknown activation through");
  return nullptr;
}

}  // namespace ess::models
