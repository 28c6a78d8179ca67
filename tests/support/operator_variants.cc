#include "tests/support/operator_variants.h"

#include <ATen/ATen.h>

#include <cstdlib>
#include <utility>

namespace ess::testing {
namespace {

using operators::OperatorArgument;
using operators::OperatorArguments;
using operators::OperatorClass;
using Change = std::function<void(const OperatorClass&, OperatorArguments&)>;

void DropOptional(const OperatorClass& op, OperatorArguments& given) {
  for (const OperatorArgument& argument : op.arguments) {
    if (argument.optional) given.tensors.erase(std::string(argument.name));
  }
}

// Arguments first, first + 2, ... of the class have one head for all.
Change ShareFrom(size_t first) {
  return [first](const OperatorClass& op, OperatorArguments& given) {
    for (size_t x = first; x < op.arguments.size(); x += 2) {
      at::Tensor& tensor = given.tensors.at(std::string(op.arguments[x].name));
      tensor = tensor.narrow(0, 0, 1);
    }
  };
}

void ReadBefore(const OperatorClass&, OperatorArguments& given) { given.read_before = true; }

void OneGate(const OperatorClass& op, OperatorArguments& given) {
  for (const OperatorArgument& argument : op.arguments) {
    if (argument.axes.find('G') == std::string_view::npos) continue;
    at::Tensor& tensor = given.tensors.at(std::string(argument.name));
    tensor = tensor.narrow(-1, 0, 1);
  }
}

// Turns each state by an angle of its own.
void Complex(const OperatorClass& op, OperatorArguments& given) {
  for (const OperatorArgument& argument : op.arguments) {
    if (!argument.complex) continue;
    at::Tensor& tensor = given.tensors.at(std::string(argument.name));
    const at::Tensor angle = at::arange(1, tensor.size(-1) + 1, at::kDouble) * 0.3;
    tensor = at::polar(tensor.abs(), angle.expand(tensor.sizes())) * at::sign(tensor);
  }
}

void ComplexReadBefore(const OperatorClass& op, OperatorArguments& given) {
  Complex(op, given);
  ReadBefore(op, given);
}

bool Any(const OperatorClass& op, const std::function<bool(const OperatorArgument&)>& holds) {
  for (const OperatorArgument& argument : op.arguments) {
    if (holds(argument)) return true;
  }
  return false;
}

std::vector<std::pair<std::string, Change>> ChangesOf(const OperatorClass& op) {
  std::vector<std::pair<std::string, Change>> changes = {
      {"", [](const OperatorClass&, OperatorArguments&) {}}};
  if (Any(op, [](const auto& a) { return a.optional; })) {
    changes.emplace_back("_WithoutOptional", DropOptional);
  }
  if (op.arguments.size() > 1) {
    changes.emplace_back("_SharedFrom0", ShareFrom(0));
    changes.emplace_back("_SharedFrom1", ShareFrom(1));
  }
  if (op.recurrence) changes.emplace_back("_ReadBefore", ReadBefore);
  if (Any(op, [](const auto& a) { return a.axes.find('G') != std::string_view::npos; })) {
    changes.emplace_back("_OneGate", OneGate);
  }
  if (Any(op, [](const auto& a) { return a.complex; })) {
    changes.emplace_back("_Complex", Complex);
    changes.emplace_back("_ComplexReadBefore", ComplexReadBefore);
  }
  return changes;
}

}  // namespace

std::unique_ptr<operators::SequenceOperator> OperatorVariant::Make(int64_t head_count,
                                                                   int64_t length,
                                                                   uint64_t seed) const {
  auto built = operators::BuildOperator(class_name, arguments(head_count, length, seed));
  if (!built.ok()) std::abort();  // The variant breaks a rule of its class.
  return std::move(built->op);
}

std::vector<OperatorVariant> AllOperatorVariants() {
  std::vector<OperatorVariant> variants;
  for (const OperatorClass& op : operators::AllOperatorClasses()) {
    for (const auto& [suffix, change] : ChangesOf(op)) {
      const auto arguments = [&op, change](int64_t head_count, int64_t length, uint64_t seed) {
        OperatorArguments given = op.example_arguments(head_count, length, seed);
        change(op, given);
        return given;
      };
      variants.push_back({std::string(op.name) + suffix, std::string(op.name), arguments});
    }
  }
  return variants;
}

}  // namespace ess::testing
