#include "server/operators/operator_arguments.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "gtest/gtest.h"
#include "server/operators/convolution.h"
#include "server/operators/operator_classes.h"
#include "server/operators/selective_scan.h"
#include "tests/support/operator_forms.h"
#include "tests/support/status_matchers.h"

namespace ess::operators {
namespace {

using ::ess::testing::DenseForm;
using ::ess::testing::IsOk;
using ::ess::testing::RandomTensor;
using ::ess::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Tensors = std::map<std::string, at::Tensor>;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

at::Tensor Zeros(at::IntArrayRef shape) { return at::zeros(shape, at::kDouble); }

absl::StatusOr<BuiltOperator> Build(std::string_view name, Tensors tensors,
                                    bool read_before = false) {
  return BuildOperator(name, {.tensors = std::move(tensors), .read_before = read_before});
}

absl::StatusOr<BuiltOperator> BuildDiagonal(const at::Tensor& a, const at::Tensor& b,
                                            const at::Tensor& c) {
  return Build("DiagonalRecurrence", {{"a", a}, {"b", b}, {"c", c}});
}

TEST(BuildOperatorTest, HeadsAreTheBroadcastBatchInRowMajorOrder) {
  const at::Tensor delta = RandomTensor({2, 3, 7}, 1).abs();
  const at::Tensor A = RandomTensor({3, 4}, 2);
  const at::Tensor B = RandomTensor({2, 1, 7, 4}, 3);
  const at::Tensor C = RandomTensor({7, 4}, 4);

  const auto built = Build("SelectiveScan", {{"delta", delta}, {"A", A}, {"B", B}, {"C", C}});

  ASSERT_THAT(built, IsOk());
  EXPECT_THAT(built->batch_shape, ElementsAre(2, 3));
  ASSERT_EQ(built->op->head_count(), 6);
  const SelectiveScan one(delta[1][2], A[2], B[1][0], C);
  EXPECT_EQ(DenseForm(*built->op, 5), DenseForm(one, 0));
}

TEST(BuildOperatorTest, NoLeadingDimensionsAreOneOperator) {
  const auto built = Build("DenseOperator", {{"T", at::eye(4, at::kFloat)}});

  ASSERT_THAT(built, IsOk());
  EXPECT_TRUE(built->batch_shape.empty());
  EXPECT_EQ(built->op->head_count(), 1);
  EXPECT_EQ(built->op->feature_epsilon(), 0x1p-23);
}

TEST(BuildOperatorTest, OptionalArgumentsMayBeAbsent) {
  const auto built = Build("Convolution", {{"h", RandomTensor({5}, 1)}});

  ASSERT_THAT(built, IsOk());
  EXPECT_TRUE(dynamic_cast<const Convolution&>(*built->op).toeplitz());
}

TEST(BuildOperatorTest, ReadBeforeReachesTheRecurrence) {
  const Tensors tensors = {{"a", at::ones({4, 2}, at::kDouble)},
                           {"b", at::ones({4, 2}, at::kDouble)},
                           {"c", at::ones({4, 2}, at::kDouble)}};

  const auto after = Build("DiagonalRecurrence", tensors, false);
  const auto before = Build("DiagonalRecurrence", tensors, true);

  EXPECT_EQ(DenseForm(*after->op, 0)[0], 2);
  EXPECT_EQ(DenseForm(*before->op, 0)[0], 0);
}

TEST(BuildOperatorTest, AnUnknownClassIsRefusedWithTheKnownOnes) {
  EXPECT_THAT(Build("Attention", {}),
              StatusIs(kInvalid, AllOf(HasSubstr("Attention"), HasSubstr("DenseOperator"),
                                       HasSubstr("BandedOperator"))));
}

TEST(BuildOperatorTest, UnknownAndMissingArgumentsAreNamed) {
  EXPECT_THAT(Build("DenseOperator", {{"T", Zeros({2, 2})}, {"mask", Zeros({2})}}),
              StatusIs(kInvalid, HasSubstr("DenseOperator has no argument 'mask'; it has T")));
  EXPECT_THAT(Build("DeltaRecurrence", {{"alpha", Zeros({2})}, {"beta", Zeros({2})}}),
              StatusIs(kInvalid, HasSubstr("DeltaRecurrence.k is missing; it is [..., L, N]")));
}

TEST(BuildOperatorTest, OnlyRecurrencesAreReadBeforeTheStep) {
  EXPECT_THAT(Build("DenseOperator", {{"T", Zeros({2, 2})}}, true),
              StatusIs(kInvalid, HasSubstr("DenseOperator is no recurrence")));
}

TEST(BuildOperatorTest, TooFewAxesAreRefusedWithTheWantedOnes) {
  EXPECT_THAT(BuildDiagonal(Zeros({3}), Zeros({3, 2}), Zeros({3, 2})),
              StatusIs(kInvalid, HasSubstr("DiagonalRecurrence.a has shape [3]; it is "
                                           "[..., L, N or 1]")));
}

TEST(BuildOperatorTest, TooManyDimensionsAreRefused) {
  const std::vector<int64_t> shape(kMaxDimensions + 1, 1);
  EXPECT_THAT(Build("DenseOperator", {{"T", Zeros(shape)}}),
              StatusIs(kInvalid, HasSubstr("17 dimensions; the limit is 16")));
}

TEST(BuildOperatorTest, EmptyDimensionsAreRefused) {
  EXPECT_THAT(BuildDiagonal(Zeros({3, 0}), Zeros({3, 2}), Zeros({3, 2})),
              StatusIs(kInvalid, HasSubstr("DiagonalRecurrence.a has shape [3, 0]")));
  EXPECT_THAT(Build("DenseOperator", {{"T", Zeros({0, 3, 3})}}),
              StatusIs(kInvalid, HasSubstr("[0, 3, 3]")));
}

TEST(BuildOperatorTest, SizesThatDisagreeNameBothArgumentsAndBothNumbers) {
  EXPECT_THAT(
      Build("DenseOperator", {{"T", Zeros({3, 4})}}),
      StatusIs(kInvalid, HasSubstr("DenseOperator.T has L = 4, but DenseOperator.T has 3")));
  EXPECT_THAT(BuildDiagonal(Zeros({3, 5}), Zeros({3, 6}), Zeros({3, 6})),
              StatusIs(kInvalid, HasSubstr("DiagonalRecurrence.b has N = 6, but "
                                           "DiagonalRecurrence.a has 5")));
  EXPECT_THAT(BuildDiagonal(Zeros({3, 1}), Zeros({3, 6}), Zeros({4, 6})),
              StatusIs(kInvalid, HasSubstr("DiagonalRecurrence.c has L = 4, but "
                                           "DiagonalRecurrence.a has 3")));
}

TEST(BuildOperatorTest, AFilterIsNoLongerThanItsGates) {
  EXPECT_THAT(Build("Convolution", {{"h", Zeros({4})}, {"gate_in", Zeros({3})}}),
              StatusIs(kInvalid, HasSubstr("Convolution.h has 4 taps, more than L = 3 of "
                                           "Convolution.gate_in")));
  EXPECT_THAT(Build("Convolution", {{"h", Zeros({2})}, {"gate_in", Zeros({3})}}), IsOk());
}

TEST(BuildOperatorTest, LeadingDimensionsThatDoNotBroadcastAreAllNamed) {
  EXPECT_THAT(BuildDiagonal(Zeros({2, 3, 1}), Zeros({4, 1, 3, 5}), Zeros({3, 3, 5})),
              StatusIs(kInvalid, HasSubstr("do not broadcast: a [2], b [4, 1], c [3]")));
}

TEST(BuildOperatorTest, TooManyHeadsAreRefusedBeforeAnythingIsMade) {
  const auto of = [](int64_t rows, int64_t columns) {
    return at::zeros({1}, at::kDouble).expand({rows, columns, 2, 2});
  };
  EXPECT_THAT(BuildDiagonal(of(1 << 20, 1), of(1, 1 << 20), of(1, 1)),
              StatusIs(kInvalid, HasSubstr("[1048576, 1048576] make more than 16777216")));
}

TEST(BuildOperatorTest, OtherDtypesAreRefused) {
  EXPECT_THAT(
      Build("DenseOperator", {{"T", at::zeros({2, 2}, at::kBFloat16)}}),
      StatusIs(kInvalid, HasSubstr("DenseOperator.T is BFloat16; it is float32 or float64")));
  EXPECT_THAT(Build("BandedOperator", {{"band", at::zeros({2, 2}, at::kComplexDouble)}}),
              StatusIs(kInvalid, HasSubstr("BandedOperator.band is ComplexDouble")));
  const at::Tensor complex = at::zeros({2, 2}, at::kComplexFloat);
  EXPECT_THAT(BuildDiagonal(complex, Zeros({2, 2}), complex), IsOk());
}

TEST(BuildOperatorTest, AnEntryAboveTheDiagonalIsNamed) {
  at::Tensor T = RandomTensor({2, 3, 4, 4}, 1).tril().transpose(0, 1);  // [3, 2, 4, 4]
  ASSERT_THAT(Build("DenseOperator", {{"T", T}}), IsOk());

  T[2][1][0][3] = 0.5;

  EXPECT_THAT(Build("DenseOperator", {{"T", T}}),
              StatusIs(kInvalid, HasSubstr("DenseOperator.T is 0.5 at [2, 1, 0, 3], above the "
                                           "diagonal")));
}

TEST(BuildOperatorTest, AnEntryThatIsNotFiniteIsNamed) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    at::Tensor band = at::zeros({2, 3, 2}, dtype);
    band[1][2][0] = -HUGE_VAL;
    EXPECT_THAT(Build("BandedOperator", {{"band", band}}),
                StatusIs(kInvalid, HasSubstr("BandedOperator.band is -inf at [1, 2, 0]")));
  }
  at::Tensor T = at::eye(3, at::kDouble);
  T[0][2] = NAN;
  EXPECT_THAT(Build("DenseOperator", {{"T", T}}),
              StatusIs(kInvalid, HasSubstr("is nan at [0, 2]")));
  const at::Tensor c = at::complex(Zeros({2, 3}), Zeros({2, 3}));
  at::imag(c)[1][2] = NAN;
  EXPECT_THAT(BuildDiagonal(Zeros({2, 3}), Zeros({2, 3}), c),
              StatusIs(kInvalid, HasSubstr("DiagonalRecurrence.c is nan at [1, 2]")));
}

TEST(CheckDeclarationTest, AnswersTheShapeBeforeAnyValue) {
  const std::vector<ArgumentDeclaration> declared = {{"c", at::kDouble, {7, 4}},
                                                     {"a", at::kFloat, {5, 1, 7, 1}},
                                                     {"b", at::kComplexFloat, {3, 7, 4}}};

  const auto shape = CheckDeclaration("DiagonalRecurrence", declared, true);

  ASSERT_THAT(shape, IsOk());
  EXPECT_THAT(shape->batch_shape, ElementsAre(5, 3));
  EXPECT_EQ(shape->head_count, 15);
  EXPECT_EQ(shape->length, 7);
}

TEST(CheckDeclarationTest, AnArgumentGivenTwiceIsRefused) {
  const std::vector<ArgumentDeclaration> declared = {{"T", at::kDouble, {3, 3}},
                                                     {"T", at::kDouble, {3, 3}}};

  EXPECT_THAT(CheckDeclaration("DenseOperator", declared, false),
              StatusIs(kInvalid, HasSubstr("DenseOperator.T is given twice")));
}

TEST(CheckDeclarationTest, NegativeSizesAreRefused) {
  const std::vector<ArgumentDeclaration> declared = {{"T", at::kDouble, {-1, -1}}};

  EXPECT_THAT(CheckDeclaration("DenseOperator", declared, false),
              StatusIs(kInvalid, HasSubstr("[-1, -1]; every dimension is at least 1")));
}

TEST(OperatorClassesTest, NamesAreUniqueAndEveryExampleHasEveryArgument) {
  std::vector<std::string_view> names;
  for (const OperatorClass& op : AllOperatorClasses()) {
    names.push_back(op.name);
    const OperatorArguments example = op.example_arguments(3, 9, 1);
    for (const OperatorArgument& argument : op.arguments) {
      ASSERT_TRUE(example.tensors.contains(std::string(argument.name))) << op.name;
      const at::Tensor& tensor = example.tensors.at(std::string(argument.name));
      EXPECT_EQ(tensor.dim(), static_cast<int64_t>(argument.axes.size()) + 1) << argument.name;
      EXPECT_EQ(tensor.size(0), 3) << argument.name;
    }
    EXPECT_THAT(BuildOperator(op.name, example), IsOk());
  }
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
}

}  // namespace
}  // namespace ess::operators
