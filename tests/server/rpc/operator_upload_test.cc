#include "server/rpc/operator_upload.h"

#include <ATen/ATen.h>

#include <limits>
#include <random>

#include "gmock/gmock.h"
#include "tests/support/status_matchers.h"

namespace ess::rpc {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// Arguments 'a' [2, 3, 1] float32 and 'b' [3, 4] complex128.
OperatorsJob TwoArguments() {
  OperatorsJob job;
  job.class_name = "DiagonalRecurrence";
  job.arguments = {{.name = "a", .dtype = c10::ScalarType::Float, .shape = {2, 3, 1}},
                   {.name = "b", .dtype = c10::ScalarType::ComplexDouble, .shape = {3, 4}}};
  job.shape = {.batch_shape = {2}, .head_count = 2, .length = 3};
  return job;
}

template <typename Number>
v1::OperatorData Piece(int argument, int64_t first, const std::vector<Number>& numbers) {
  v1::OperatorData data;
  data.set_argument(argument);
  data.set_first_element(first);
  data.set_values(numbers.data(), numbers.size() * sizeof(Number));
  return data;
}

TEST(OperatorUploadTest, PutsPiecesOfAnySizeTogether) {
  const OperatorsJob job = TwoArguments();
  const at::Tensor a = at::rand({2, 3, 1}, at::kFloat);
  const at::Tensor b = at::randn({3, 4}, at::kComplexDouble);
  std::mt19937 random(3);
  for (int round = 0; round < 20; ++round) {
    OperatorUpload upload(job);
    for (int argument = 0; argument < 2; ++argument) {
      const at::Tensor& values = argument == 0 ? a : b;
      const auto* bytes = static_cast<const char*>(values.const_data_ptr());
      for (int64_t first = 0; first < values.numel();) {
        EXPECT_FALSE(upload.CheckComplete().ok());
        const int64_t count = std::min<int64_t>(1 + random() % 5, values.numel() - first);
        v1::OperatorData data;
        data.set_argument(argument);
        data.set_first_element(first);
        data.set_values(bytes + first * values.itemsize(), count * values.itemsize());
        ASSERT_THAT(upload.Add(data), IsOk());
        first += count;
      }
    }
    ASSERT_THAT(upload.CheckComplete(), IsOk());
    EXPECT_TRUE(upload.arguments()[0].equal(a));
    EXPECT_TRUE(upload.arguments()[1].equal(b));
  }
}

TEST(OperatorUploadTest, RefusesDataOutOfOrder) {
  const OperatorsJob job = TwoArguments();
  const std::vector<float> two = {1, 2};
  const std::vector<double> complex = {1, 2};
  struct Case {
    v1::OperatorData data;
    const char* message;
  };
  const Case cases[] = {
      {Piece(1, 0, complex), "argument 0 ('a') comes next and has 2 of 6 elements"},
      {Piece(2, 0, two), "data.argument: 2; "},
      {Piece(-1, 0, two), "data.argument: -1; "},
      {Piece(0, 3, two), "data.first_element: 3 of argument 'a'; 2 elements have come, so 2 is"},
      {Piece(0, 1, two), "data.first_element: 1 of argument 'a'"},
      {Piece(0, -1, two), "data.first_element: -1"},
      {Piece(0, 2, std::vector<float>(5)), "'a' would have 7 elements; it was declared with 6"},
      {Piece(0, 2, std::vector<float>()), "data.values: 0 bytes of argument 'a'"},
      {Piece(0, 2, std::vector<char>(5)), "5 bytes of argument 'a'; whole elements of 4 bytes"},
  };
  for (const Case& bad : cases) {
    OperatorUpload upload(job);
    ASSERT_THAT(upload.Add(Piece(0, 0, two)), IsOk());
    EXPECT_THAT(upload.Add(bad.data), StatusIs(kInvalid, HasSubstr(bad.message)));
  }
}

TEST(OperatorUploadTest, RefusesMoreThanAllAndLessThanAll) {
  const OperatorsJob job = TwoArguments();
  OperatorUpload upload(job);
  EXPECT_THAT(upload.CheckComplete(),
              StatusIs(kInvalid, HasSubstr("ended with 0 of 6 elements of argument 'a'")));
  ASSERT_THAT(upload.Add(Piece(0, 0, std::vector<float>(6))), IsOk());
  ASSERT_THAT(upload.Add(Piece(1, 0, std::vector<double>(20))), IsOk());
  EXPECT_THAT(upload.CheckComplete(),
              StatusIs(kInvalid, HasSubstr("ended with 10 of 12 elements of argument 'b'")));
  ASSERT_THAT(upload.Add(Piece(1, 10, std::vector<double>(4))), IsOk());
  EXPECT_THAT(upload.CheckComplete(), IsOk());

  EXPECT_THAT(upload.Add(Piece(1, 12, std::vector<double>(2))),
              StatusIs(kInvalid, HasSubstr("all 2 arguments are complete")));
}

TEST(OperatorUploadTest, NamesArgumentAndIndexOfWhatIsNotFinite) {
  const OperatorsJob job = TwoArguments();
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    OperatorUpload upload(job);
    ASSERT_THAT(upload.Add(Piece(0, 0, std::vector<float>{1, 2})), IsOk());
    EXPECT_THAT(upload.Add(Piece(0, 2, std::vector<float>{3, 4, bad})),
                StatusIs(kInvalid, HasSubstr("element [1, 1, 0] of argument 'a' is ")));
  }
  OperatorUpload upload(job);
  ASSERT_THAT(upload.Add(Piece(0, 0, std::vector<float>(6))), IsOk());
  std::vector<double> parts(24);
  parts[15] = std::numeric_limits<double>::infinity();  // The imaginary part of element 7.
  EXPECT_THAT(upload.Add(Piece(1, 0, parts)),
              StatusIs(kInvalid, HasSubstr("element [1, 3] of argument 'b' is inf")));
}

TEST(OperatorUploadTest, TakesTheLargestFiniteNumbers) {
  const OperatorsJob job = TwoArguments();
  OperatorUpload upload(job);
  EXPECT_THAT(upload.Add(Piece(0, 0, std::vector<float>(6, std::numeric_limits<float>::max()))),
              IsOk());
}

TEST(OperatorUploadTest, RefusesANonzeroAboveTheDiagonalWhereverThePieceIsCut) {
  OperatorsJob job;
  job.class_name = "DenseOperator";
  job.arguments = {{.name = "T", .dtype = c10::ScalarType::Double, .shape = {2, 4, 4}}};
  job.shape = {.batch_shape = {2}, .head_count = 2, .length = 4};
  for (int64_t cut = 1; cut < 32; ++cut) {
    for (int64_t bad = 0; bad < 32; ++bad) {
      std::vector<double> values(32);
      for (int64_t x = 0; x < 32; ++x) values[x] = x % 4 <= x / 4 % 4 ? 1 : -0.0;
      const bool above = bad % 4 > bad / 4 % 4;
      values[bad] = 1e-300;
      OperatorUpload upload(job);
      absl::Status status =
          upload.Add(Piece(0, 0, std::vector<double>(values.begin(), values.begin() + cut)));
      if (status.ok()) {
        status = upload.Add(Piece(0, cut, std::vector<double>(values.begin() + cut, values.end())));
      }
      if (!above) {
        EXPECT_THAT(status, IsOk());
        continue;
      }
      const std::string index = "[" + std::to_string(bad / 16) + ", " +
                                std::to_string(bad / 4 % 4) + ", " + std::to_string(bad % 4) + "]";
      EXPECT_THAT(status, StatusIs(kInvalid, HasSubstr("element " + index + " of argument 'T'")));
    }
  }
}

}  // namespace
}  // namespace ess::rpc
