#include "server/rpc/operator_upload.h"

#include <ATen/ATen.h>

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

}  // namespace
}  // namespace ess::rpc
