#include "server/rpc/operator_declaration.h"

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "tests/support/status_matchers.h"

namespace ess::rpc {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

OperatorLimits SmallLimits() {
  return {.max_operator_bytes = 4096,
          .max_operator_length = 16,
          .max_operator_batch = 8,
          .max_result_bytes = 1000,
          .default_measures = {{.kind = Measure::Kind::kTolerance, .value = 0.5}}};
}

absl::StatusOr<OperatorsJob> Decode(const std::string& text) {
  v1::OperatorDeclaration declaration;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &declaration)) << text;
  return DecodeOperatorDeclaration(declaration, SmallLimits());
}

const char kDense[] = R"pb(operator_class: OPERATOR_CLASS_DENSE
                           arguments {
                             name: "T"
                             dtype: OPERATOR_DTYPE_FLOAT32
                             shape: [ 2, 6, 6 ]
                           })pb";

TEST(OperatorDeclarationTest, DecodesARecurrence) {
  const auto job = Decode(R"pb(
    operator_class: OPERATOR_CLASS_DIAGONAL_RECURRENCE
    read_order: READ_ORDER_BEFORE
    arguments {
      name: "a"
      dtype: OPERATOR_DTYPE_FLOAT32
      shape: [ 6, 1 ]
    }
    arguments {
      name: "b"
      dtype: OPERATOR_DTYPE_COMPLEX128
      shape: [ 3, 6, 2 ]
    }
    arguments {
      name: "c"
      dtype: OPERATOR_DTYPE_FLOAT64
      shape: [ 2, 1, 6, 2 ]
    }
    measures { causal {} }
    options { horizon: 4 certify: true reduction: REDUCTION_POSITIONS }
    positions { ranges { first: 1 last: 5 stride: 2 } }
  )pb");

  ASSERT_THAT(job, IsOk());
  EXPECT_EQ(job->class_name, "DiagonalRecurrence");
  EXPECT_TRUE(job->read_before);
  EXPECT_EQ(job->arguments[1].dtype, c10::ScalarType::ComplexDouble);
  EXPECT_EQ(ByteCount(job->arguments[1]), 3 * 6 * 2 * 16);
  EXPECT_THAT(job->shape.batch_shape, ElementsAre(2, 3));
  EXPECT_EQ(job->shape.head_count, 6);
  EXPECT_EQ(job->shape.length, 6);
  EXPECT_EQ(job->measures[0].kind, Measure::Kind::kCausal);
  EXPECT_EQ(job->options, (EssOptions{.horizon = 4, .certify = true}));
  EXPECT_EQ(job->reduction, Reduction::kPositions);
  EXPECT_THAT(job->positions, ElementsAre(1, 3, 5));
}

TEST(OperatorDeclarationTest, FillsInTheDefaults) {
  const auto job = Decode(kDense);

  ASSERT_THAT(job, IsOk());
  EXPECT_EQ(FormatMeasure(job->measures[0]), "tolerance:0.5");
  EXPECT_EQ(job->options, EssOptions{});
  EXPECT_EQ(job->reduction, Reduction::kNone);
  EXPECT_THAT(job->positions, ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_FALSE(job->read_before);
}

TEST(OperatorDeclarationTest, KnowsEveryClassOfTheProtocol) {
  for (int value = v1::OperatorClass_MIN + 1; value <= v1::OperatorClass_MAX; ++value) {
    v1::OperatorDeclaration declaration;
    declaration.set_operator_class(static_cast<v1::OperatorClass>(value));
    // An argument is what is missing.
    EXPECT_THAT(DecodeOperatorDeclaration(declaration, SmallLimits()),
                StatusIs(kInvalid, HasSubstr(" is missing")))
        << value;
  }
}

// A declaration of a dense operator with something wrong, and a part of the message.
struct BadDeclaration {
  const char* text;
  const char* message;
};

TEST(OperatorDeclarationTest, NamesWhatIsWrongBeforeAnyDataComes) {
  const BadDeclaration cases[] = {
      {"", "operator_class: 0 is not an OperatorClass"},
      {"operator_class: 99", "operator_class: 99 is not an OperatorClass"},
      {"operator_class: OPERATOR_CLASS_DENSE read_order: 7", "read_order: 7 is not a ReadOrder"},
      {R"pb(operator_class: OPERATOR_CLASS_DENSE
            arguments {
              name: "T"
              shape: [ 4, 4 ]
            })pb",
       "arguments[0].dtype: 0 is not an OperatorDtype"},
      {R"pb(operator_class: OPERATOR_CLASS_DENSE
            arguments {
              name: "T"
              dtype: OPERATOR_DTYPE_FLOAT32
              shape: [ 17, 17 ]
            })pb",
       "operators of 17 positions; the limit is 16 (max_operator_length)"},
      {R"pb(operator_class: OPERATOR_CLASS_DENSE
            arguments {
              name: "T"
              dtype: OPERATOR_DTYPE_FLOAT32
              shape: [ 3, 3, 2, 2 ]
            })pb",
       "9 operators in one call; the limit is 8 (max_operator_batch)"},
      {R"pb(operator_class: OPERATOR_CLASS_DENSE
            arguments {
              name: "T"
              dtype: OPERATOR_DTYPE_FLOAT64
              shape: [ 4, 12, 12 ]
            })pb",
       "4608 bytes in one call; the limit is 4096 (max_operator_bytes)"},
      {R"pb(operator_class: OPERATOR_CLASS_DENSE
            arguments {
              name: "T"
              dtype: OPERATOR_DTYPE_FLOAT32
              shape: [ 8, 8, 8 ]
            }
            measures { singular_values: 4 })pb",
       "the answer would have 1024 bytes; the limit is 1000 (max_result_bytes)"},
  };
  for (const BadDeclaration& bad : cases) {
    EXPECT_THAT(Decode(bad.text), StatusIs(kInvalid, HasSubstr(bad.message))) << bad.text;
  }
}

TEST(OperatorDeclarationTest, NamesWhatIsWrongWithTheRestOfTheRequest) {
  const BadDeclaration cases[] = {
      {"measures {}", "measures[0]: no measure is set"},
      {"measures { tolerance: -1 }", "measures[0]: "},
      {"measures { entropy {} } measures { entropy {} }", "measures[1]: 'entropy' is there twice"},
      {"options { horizon: 0 }", "options.horizon: 0 is not allowed; it must be at least 1"},
      {"options { reduction: 5 }", "options.reduction: 5 is not a Reduction"},
      {"positions { ranges { first: 6 last: 6 } }", "positions: index 6 does not exist"},
      {"positions { ranges { first: 2 last: 1 } }", "positions: "},
  };
  for (const BadDeclaration& bad : cases) {
    EXPECT_THAT(Decode(std::string(kDense) + bad.text), StatusIs(kInvalid, HasSubstr(bad.message)))
        << bad.text;
  }
}

TEST(OperatorDeclarationTest, RefusesSizesWhoseProductOverflows) {
  v1::OperatorDeclaration declaration;
  declaration.set_operator_class(v1::OPERATOR_CLASS_BANDED);
  v1::OperatorArgument* band = declaration.add_arguments();
  band->set_name("band");
  band->set_dtype(v1::OPERATOR_DTYPE_FLOAT64);
  band->add_shape(16);
  band->add_shape(int64_t{1} << 61);

  EXPECT_THAT(DecodeOperatorDeclaration(declaration, SmallLimits()),
              StatusIs(kInvalid, HasSubstr("arguments: ")));
}

}  // namespace
}  // namespace ess::rpc
