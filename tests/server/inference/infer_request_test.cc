#include "server/inference/infer_request.h"

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "server/inference/raw_tensor.h"
#include "tests/support/status_matchers.h"

namespace ess::inference {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// Two prompts of two tokens, typed.
constexpr char kTyped[] = R"pb(
  model_name: "m"
  inputs {
    name: "TOKENS"
    datatype: "INT64"
    shape: [ 2, 2 ]
    contents { int64_contents: [ 1, 2, 3, 4 ] }
  }
)pb";

ModelInferRequest RequestOf(const std::string& text) {
  ModelInferRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
  return request;
}

absl::StatusOr<InferRequest> Decode(const ModelInferRequest& request) {
  return DecodeInferRequest(
      request,
      {.max_prompts = 2, .default_measures = {{.kind = Measure::Kind::kTolerance, .value = 0.5}}});
}

absl::StatusOr<InferRequest> Decode(const std::string& text) { return Decode(RequestOf(text)); }

std::vector<int64_t> Tokens(const InferRequest& request, int prompt) {
  return std::get<std::vector<int64_t>>(request.job.prompts[prompt].content);
}

// kTyped with one parameter more.
absl::StatusOr<InferRequest> WithParameter(const std::string& name, const std::string& value) {
  return Decode(kTyped + ("parameters { key: \"" + name + "\" value { " + value + " } }"));
}

TEST(InferRequestTest, TypedTokensAreRead) {
  const auto decoded = Decode(kTyped);

  ASSERT_THAT(decoded, IsOk());
  EXPECT_THAT(Tokens(*decoded, 0), ElementsAre(1, 2));
  EXPECT_THAT(Tokens(*decoded, 1), ElementsAre(3, 4));
  EXPECT_THAT(decoded->outputs, ElementsAre("ESS", "MEASURE", "LAYER", "LAYER_INDEX", "HEAD_INDEX",
                                            "POSITION_INDEX", "TOKENS_USED"));
  EXPECT_EQ(FormatMeasure(decoded->job.measures.at(0)), "tolerance:0.5");
}

TEST(InferRequestTest, RawTokensAreCutAtTheirLengths) {
  ModelInferRequest request = RequestOf(R"pb(
    inputs { name: "LENGTHS" datatype: "INT32" shape: 2 }
    inputs {
      name: "TOKENS"
      datatype: "INT32"
      shape: [ 2, 2 ]
    }
  )pb");
  request.add_raw_input_contents(PackIntegers(std::vector<int32_t>{1, 2}));
  request.add_raw_input_contents(PackIntegers(std::vector<int32_t>{5, 0, 6, 7}));

  const auto decoded = Decode(request);

  ASSERT_THAT(decoded, IsOk());
  EXPECT_THAT(Tokens(*decoded, 0), ElementsAre(5));
  EXPECT_THAT(Tokens(*decoded, 1), ElementsAre(6, 7));
}

TEST(InferRequestTest, TextsAreRead) {
  const auto decoded = Decode(R"pb(inputs {
                                     name: "TEXT"
                                     datatype: "BYTES"
                                     shape: 1
                                     contents { bytes_contents: "a word" }
                                   })pb");

  ASSERT_THAT(decoded, IsOk());
  EXPECT_EQ(std::get<std::string>(decoded->job.prompts[0].content), "a word");
  EXPECT_EQ(decoded->prompt_tensor, "TEXT");
}

TEST(InferRequestTest, RawAndTypedTogetherAreRefusedAndSoIsNeither) {
  ModelInferRequest both = RequestOf(kTyped);
  both.add_raw_input_contents(std::string(32, '\0'));
  ModelInferRequest neither = RequestOf(kTyped);
  neither.mutable_inputs(0)->clear_contents();

  EXPECT_THAT(Decode(both), StatusIs(kInvalid, HasSubstr("all inputs raw or all typed")));
  EXPECT_THAT(Decode(neither), StatusIs(kInvalid, HasSubstr("TOKENS: there is no data")));
}

TEST(InferRequestTest, RawEntriesAndInputsAreAsMany) {
  ModelInferRequest request = RequestOf(kTyped);
  request.mutable_inputs(0)->clear_contents();
  request.add_raw_input_contents(std::string(32, '\0'));
  request.add_raw_input_contents("");

  EXPECT_THAT(Decode(request), StatusIs(kInvalid, HasSubstr("2 entries for 1 inputs")));
}

TEST(InferRequestTest, InputsThatAreNoneAreNamed) {
  ModelInferRequest many = RequestOf(kTyped);
  for (int i = 0; i < 10'000; ++i) *many.add_inputs() = many.inputs(0);

  EXPECT_THAT(
      Decode(R"pb(inputs {
                    name: "INPUT_IDS"
                    datatype: "INT64"
                    shape: [ 1, 1 ]
                  })pb"),
      StatusIs(kInvalid, HasSubstr("no input 'INPUT_IDS'; there are TOKENS, TEXT, LENGTHS")));
  EXPECT_THAT(Decode(many), StatusIs(kInvalid, HasSubstr("inputs[1]: TOKENS is there twice")));
  EXPECT_THAT(Decode(R"pb(model_name: "m")pb"), StatusIs(kInvalid, HasSubstr("neither of TOKENS")));
}

TEST(InferRequestTest, ShapesAndCountsAreChecked) {
  const auto with = [](const std::string& from, const std::string& to) {
    std::string text = kTyped;
    text.replace(text.find(from), from.size(), to);
    return Decode(text);
  };
  EXPECT_THAT(with("[ 2, 2 ]", "[ 4 ]"), StatusIs(kInvalid, HasSubstr("1 dimensions; 2")));
  EXPECT_THAT(with("[ 2, 2 ]", "[ 2, -2 ]"), StatusIs(kInvalid, HasSubstr("negative")));
  EXPECT_THAT(
      with("[ 2, 2 ]", "[ 2, 3 ]"),
      StatusIs(kInvalid, HasSubstr("4 elements in int64_contents; the shape [2, 3] has 6")));
  EXPECT_THAT(
      with("[ 2, 2 ]", "[ 4, 1 ]"),
      StatusIs(kInvalid, HasSubstr("4 prompts in one request; the limit is 2 (max_prompts)")));
  EXPECT_THAT(with("[ 2, 2 ]", "[ 0, 2 ]"), StatusIs(kInvalid, HasSubstr("at least 1")));
  EXPECT_THAT(with("[ 2, 2 ]", "[ 2, 0 ]"), StatusIs(kInvalid, HasSubstr("at least 1")));
  EXPECT_THAT(with("INT64", "FP32"), StatusIs(kInvalid, HasSubstr("'FP32'; INT32 or INT64")));
  EXPECT_THAT(with("int64_contents", "int_contents"),
              StatusIs(kInvalid, HasSubstr("other fields than int64_contents")));
}

TEST(InferRequestTest, LengthsOutOfRangeAreNamed) {
  const std::string lengths = R"pb(inputs {
                                     name: "LENGTHS"
                                     datatype: "INT32"
                                     shape: 2
                                     contents { int_contents: [ 1, 3 ] }
                                   })pb";

  EXPECT_THAT(Decode(kTyped + lengths),
              StatusIs(kInvalid, HasSubstr("LENGTHS: 3 at index 1; a prompt has 1 to 2 tokens")));
}

TEST(InferRequestTest, ParametersMakeTheJob) {
  const auto decoded = Decode(kTyped + std::string(R"pb(
                                parameters {
                                  key: "measures"
                                  value { string_param: "tolerance:1e-3, entropy" }
                                }
                                parameters {
                                  key: "layers"
                                  value { string_param: "0,4-7,007.attention" }
                                }
                                parameters {
                                  key: "heads"
                                  value { int64_param: 3 }
                                }
                                parameters {
                                  key: "positions"
                                  value { string_param: "0-511:8" }
                                }
                                parameters {
                                  key: "horizon"
                                  value { uint64_param: 5 }
                                }
                                parameters {
                                  key: "certify"
                                  value { bool_param: true }
                                }
                                parameters {
                                  key: "priority"
                                  value { uint64_param: 2 }
                                }
                                parameters {
                                  key: "timeout"
                                  value { int64_param: 1500 }
                                }
                                parameters {
                                  key: "triton_enable_empty_final_response"
                                  value { bool_param: true }
                                }
                              )pb"));

  ASSERT_THAT(decoded, IsOk());
  EXPECT_EQ(FormatMeasure(decoded->job.measures.at(1)), "entropy");
  EXPECT_EQ(decoded->job.layers.indices.ranges.at(1).last, 7);
  EXPECT_THAT(decoded->job.layers.names, ElementsAre("007.attention"));
  EXPECT_EQ(decoded->job.heads.ranges.at(0).first, 3);
  EXPECT_EQ(decoded->job.positions.ranges.at(0).stride, 8);
  EXPECT_EQ(decoded->job.options.horizon, 5);
  EXPECT_EQ(decoded->outputs.back(), "CERTAIN");
  EXPECT_EQ(decoded->priority, admission::Priority::kLow);
  EXPECT_EQ(decoded->longest_wait, absl::Microseconds(1500));
}

TEST(InferRequestTest, AParameterThatDoesNotExistIsNamedWithWhatMayBeMeant) {
  EXPECT_THAT(WithParameter("layer", "int64_param: 1"),
              StatusIs(kInvalid, HasSubstr("no 'layer'; did you mean 'layers'?")));
  EXPECT_THAT(WithParameter("Mesures", "int64_param: 1"),
              StatusIs(kInvalid, HasSubstr("mean 'measures'?")));
  EXPECT_THAT(WithParameter("tolerance", "double_param: 1"),
              StatusIs(kInvalid, HasSubstr("mean 'measures'?")));
  for (const char* name :
       {"kind", "reduce", "dtype", "headers", "binary_data_output", "triton_x"}) {
    EXPECT_THAT(WithParameter(name, "int64_param: 1"),
                StatusIs(kInvalid, HasSubstr(std::string("no '") + name + "'")));
  }
  for (const char* name : {"sequence_id", "sequence_start", "sequence_end"}) {
    EXPECT_THAT(WithParameter(name, "int64_param: 1"),
                StatusIs(kInvalid, HasSubstr("no stateful sequences")));
  }
}

TEST(InferRequestTest, ParametersOfAnotherTypeOrRangeAreNamed) {
  EXPECT_THAT(WithParameter("layers", "double_param: 1"),
              StatusIs(kInvalid, HasSubstr("'layers' is a double_param; a string_param")));
  EXPECT_THAT(WithParameter("layers", "string_param: '5-3'"),
              StatusIs(kInvalid, HasSubstr("layers: the range")));
  EXPECT_THAT(WithParameter("heads", "string_param: ''"),
              StatusIs(kInvalid, HasSubstr("heads: '' is not like")));
  EXPECT_THAT(WithParameter("positions", "string_param: '1-2:3:4'"),
              StatusIs(kInvalid, HasSubstr("positions")));
  EXPECT_THAT(WithParameter("positions", "int64_param: -1"),
              StatusIs(kInvalid, HasSubstr("positions")));
  EXPECT_THAT(WithParameter("measures", "string_param: 'tolerance:-1'"),
              StatusIs(kInvalid, HasSubstr("measures: ")));
  EXPECT_THAT(WithParameter("measures", "string_param: 'entropy,entropy'"),
              StatusIs(kInvalid, HasSubstr("twice")));
  EXPECT_THAT(WithParameter("measures", "string_param: 'singular_values:4'"),
              StatusIs(kInvalid, HasSubstr("Profile")));
  EXPECT_THAT(WithParameter("horizon", "int64_param: 0"),
              StatusIs(kInvalid, HasSubstr("horizon: 0")));
  EXPECT_THAT(WithParameter("certify", "int64_param: 1"),
              StatusIs(kInvalid, HasSubstr("a bool_param is expected")));
  EXPECT_THAT(WithParameter("priority", "int64_param: -1"),
              StatusIs(kInvalid, HasSubstr("priority: -1")));
  EXPECT_THAT(WithParameter("priority", "uint64_param: 18446744073709551615"),
              StatusIs(kInvalid, HasSubstr("priority")));
  EXPECT_THAT(WithParameter("timeout", "int64_param: -5"),
              StatusIs(kInvalid, HasSubstr("timeout: -5")));
  EXPECT_THAT(WithParameter("timeout", ""), StatusIs(kInvalid, HasSubstr("'timeout' is nothing")));
}

TEST(InferRequestTest, WantedOutputsAreTakenInTheirOrder) {
  const auto decoded = Decode(kTyped + std::string(R"pb(outputs { name: "LAYER" }
                                                        outputs { name: "ESS" })pb"));

  ASSERT_THAT(decoded, IsOk());
  EXPECT_THAT(decoded->outputs, ElementsAre("LAYER", "ESS"));
}

TEST(InferRequestTest, OutputsThatAreNoneAndParametersOfTensorsAreRefused) {
  const auto output = [](const std::string& text) {
    return Decode(kTyped + ("outputs { " + text + " }"));
  };
  EXPECT_THAT(output("name: 'LOGITS'"),
              StatusIs(kInvalid, HasSubstr("no output 'LOGITS'; there are ESS")));
  EXPECT_THAT(output("name: 'ESS' } outputs { name: 'ESS'"),
              StatusIs(kInvalid, HasSubstr("twice")));
  EXPECT_THAT(output("name: 'CERTAIN'"), StatusIs(kInvalid, HasSubstr("certify")));
  EXPECT_THAT(output("name: 'ESS' parameters { key: 'classification' value { int64_param: 3 } }"),
              StatusIs(kInvalid, HasSubstr("classification")));
  EXPECT_THAT(
      output("name: 'ESS' parameters { key: 'shared_memory_region' value { string_param: 'r' } }"),
      StatusIs(kInvalid, HasSubstr("shares no memory")));
}

TEST(InferRequestTest, TheOnlyVersionIsOne) {
  EXPECT_THAT(CheckVersion("m", ""), IsOk());
  EXPECT_THAT(CheckVersion("m", "1"), IsOk());
  EXPECT_THAT(CheckVersion("m", "abc123"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no version 'abc123'; it has 1")));
}

}  // namespace
}  // namespace ess::inference
