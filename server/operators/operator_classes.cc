#include "server/operators/operator_classes.h"

#include <ATen/ATen.h>

#include <array>
#include <optional>
#include <string>

#include "server/operators/banded_operator.h"
#include "server/operators/convolution.h"
#include "server/operators/delta_recurrence.h"
#include "server/operators/dense_operator.h"
#include "server/operators/diagonal_plus_rank_one.h"
#include "server/operators/diagonal_recurrence.h"
#include "server/operators/general_recurrence.h"
#include "server/operators/operator_examples.h"
#include "server/operators/selective_scan.h"

namespace ess::operators {
namespace {

using Operator = std::unique_ptr<SequenceOperator>;

constexpr OperatorArgument kDense[] = {{"T", "LL"}};
Operator BuildDense(const OperatorArguments& given) {
  const at::Tensor& T = given.tensors.at("T");
  return std::make_unique<DenseOperator>(T.reshape({-1, T.size(-1), T.size(-1)}),
                                         StateSize::Growing());
}

constexpr OperatorArgument kDiagonal[] = {{.name = "a", .axes = "LG", .complex = true},
                                          {.name = "b", .axes = "LN", .complex = true},
                                          {.name = "c", .axes = "LN", .complex = true}};
Operator BuildDiagonal(const OperatorArguments& given) {
  const auto& x = given.tensors;
  return std::make_unique<DiagonalRecurrence>(x.at("a"), x.at("b"), x.at("c"), given.read_before);
}

constexpr OperatorArgument kDelta[] = {{"alpha", "L"}, {"beta", "L"}, {"k", "LN"}, {"c", "LN"}};
Operator BuildDelta(const OperatorArguments& given) {
  const auto& x = given.tensors;
  return std::make_unique<DeltaRecurrence>(x.at("alpha"), x.at("beta"), x.at("k"), x.at("c"),
                                           given.read_before);
}

constexpr OperatorArgument kDiagonalPlusRankOne[] = {
    {"w", "LN"}, {"p", "LN"}, {"q", "LN"}, {"k", "LN"}, {"c", "LN"}};
Operator BuildDiagonalPlusRankOne(const OperatorArguments& given) {
  const auto& x = given.tensors;
  return std::make_unique<DiagonalPlusRankOne>(x.at("w"), x.at("p"), x.at("q"), x.at("k"),
                                               x.at("c"), given.read_before);
}

constexpr OperatorArgument kGeneral[] = {{"A", "LNN"}, {"b", "LN"}, {"c", "LN"}};
Operator BuildGeneral(const OperatorArguments& given) {
  const auto& x = given.tensors;
  return std::make_unique<GeneralRecurrence>(x.at("A"), x.at("b"), x.at("c"), given.read_before);
}

std::optional<at::Tensor> Optional(const OperatorArguments& given, const std::string& name) {
  const auto found = given.tensors.find(name);
  return found == given.tensors.end() ? std::nullopt : std::optional(found->second);
}

constexpr OperatorArgument kConvolution[] = {{"h", "K"},
                                             {.name = "gate_out", .axes = "L", .optional = true},
                                             {.name = "gate_in", .axes = "L", .optional = true}};
Operator BuildConvolution(const OperatorArguments& given) {
  return std::make_unique<Convolution>(given.tensors.at("h"), Optional(given, "gate_out"),
                                       Optional(given, "gate_in"));
}

constexpr OperatorArgument kBanded[] = {{"band", "LW"},
                                        {.name = "sinks", .axes = "LS", .optional = true}};
Operator BuildBanded(const OperatorArguments& given) {
  return std::make_unique<BandedOperator>(given.tensors.at("band"), Optional(given, "sinks"));
}

constexpr OperatorArgument kSelectiveScan[] = {
    {"delta", "L"}, {"A", "N"}, {"B", "LN"}, {"C", "LN"}};
Operator BuildSelectiveScan(const OperatorArguments& given) {
  const auto& x = given.tensors;
  return std::make_unique<SelectiveScan>(x.at("delta"), x.at("A"), x.at("B"), x.at("C"),
                                         given.read_before);
}

}  // namespace

std::unique_ptr<SequenceOperator> OperatorClass::make_example(int64_t head_count, int64_t length,
                                                              uint64_t seed) const {
  return build(example_arguments(head_count, length, seed));
}

std::span<const OperatorClass> AllOperatorClasses() {
  static constexpr std::array kAll = {
      // name, arguments, recurrence, example_arguments, build
      OperatorClass{"DenseOperator", kDense, false, DenseExample, BuildDense},
      OperatorClass{"DiagonalRecurrence", kDiagonal, true, DiagonalExample, BuildDiagonal},
      OperatorClass{"DeltaRecurrence", kDelta, true, DeltaExample, BuildDelta},
      OperatorClass{"DiagonalPlusRankOne", kDiagonalPlusRankOne, true, DiagonalPlusRankOneExample,
                    BuildDiagonalPlusRankOne},
      OperatorClass{"GeneralRecurrence", kGeneral, true, GeneralExample, BuildGeneral},
      OperatorClass{"Convolution", kConvolution, false, ConvolutionExample, BuildConvolution},
      OperatorClass{"BandedOperator", kBanded, false, BandedExample, BuildBanded},
      OperatorClass{"SelectiveScan", kSelectiveScan, true, SelectiveScanExample,
                    BuildSelectiveScan},
  };
  return kAll;
}

}  // namespace ess::operators
