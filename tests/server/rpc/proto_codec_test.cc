#include "server/rpc/proto_codec.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "server/rpc/measure_codec.h"
#include "tests/support/status_matchers.h"

namespace ess::rpc {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

v1::ProfileRequest RequestOf(const std::string& text) {
  v1::ProfileRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
  return request;
}

absl::StatusOr<ProfileJob> Decode(const std::string& text) {
  return DecodeProfileRequest(
      RequestOf(text),
      {.max_prompts = 2, .default_measures = {{.kind = Measure::Kind::kTolerance, .value = 0.5}}});
}

TEST(ProtoCodecTest, DecodesAProfileRequest) {
  const auto job = Decode(R"pb(
    model: "m"
    prompts { id: "a" text: "hello" }
    prompts { token_ids { ids: 1 ids: 2 } }
    measures { head_relative: 0.25 }
    measures { entropy {} }
    layers {
      ranges { first: 1 last: 3 }
      names: "007"
    }
    heads { ranges { first: 0 last: 8 stride: 2 } }
    add_special_tokens: false
  )pb");

  ASSERT_THAT(job, IsOk());
  EXPECT_EQ(job->model, "m");
  EXPECT_EQ(std::get<std::string>(job->prompts[0].content), "hello");
  EXPECT_EQ(job->prompts[1].id, "1");
  EXPECT_EQ(std::get<std::vector<int64_t>>(job->prompts[1].content), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(FormatMeasure(job->measures[0]), "head_relative:0.25");
  EXPECT_EQ(FormatMeasure(job->measures[1]), "entropy");
  EXPECT_EQ(job->layers.indices.ranges[0].stride, 1);
  EXPECT_EQ(job->layers.names, std::vector<std::string>{"007"});
  EXPECT_EQ(job->heads.ranges[0].stride, 2);
  EXPECT_FALSE(job->add_special_tokens);
}

TEST(ProtoCodecTest, FillsInTheDefaults) {
  const auto job = Decode(R"pb(model: "m"
                               prompts { text: "x" })pb");
  ASSERT_THAT(job, IsOk());
  EXPECT_TRUE(job->add_special_tokens);
  EXPECT_EQ(FormatMeasure(job->measures[0]), "tolerance:0.5");
}

// Each bad request with a part of the message that names the field and what is wrong.
struct BadRequest {
  const char* request;
  const char* message;
};

TEST(ProtoCodecTest, NamesTheFieldOfEachBadRequest) {
  const BadRequest cases[] = {
      {R"pb(prompts { text: "x" })pb", "model: the name is empty"},
      {R"pb(model: "m")pb", "prompts: the list is empty"},
      {R"pb(model: "m"
            prompts { text: "" })pb",
       "prompts[0].text: prompt '0' is empty"},
      {R"pb(model: "m"
            prompts { token_ids {} })pb",
       "prompts[0].token_ids: prompt '0' has no"},
      {R"pb(model: "m"
            prompts { id: "p" })pb",
       "prompt 'p' has neither text nor token_ids"},
      {R"pb(model: "m"
            prompts { id: "p" text: "a" }
            prompts { id: "p" text: "b" })pb",
       "prompts[1].id: 'p' is the id of another prompt"},
      {R"pb(model: "m"
            prompts { text: "a" }
            prompts { text: "a" }
            prompts { text: "a" })pb",
       "3 prompts in one request; the limit is 2 (max_prompts)"},
      {R"pb(model: "m"
            prompts { text: "x" }
            measures {})pb",
       "measures[0]: no measure is set"},
      {R"pb(model: "m"
            prompts { text: "x" }
            measures { tolerance: 0 })pb",
       "measures[0]: "},
      {R"pb(model: "m"
            prompts { text: "x" }
            measures { tolerance: -1 })pb",
       "measures[0]: "},
      {R"pb(model: "m"
            prompts { text: "x" }
            measures { tolerance: nan })pb",
       "measures[0]: "},
      {R"pb(model: "m"
            prompts { text: "x" }
            measures { tolerance: inf })pb",
       "measures[0]: "},
      {R"pb(model: "m"
            prompts { text: "x" }
            measures { relative: 1 })pb",
       "measures[0]: "},
      {R"pb(model: "m"
            prompts { text: "x" }
            measures { singular_values: 0 })pb",
       "measures[0]: "},
      {R"pb(model: "m"
            prompts { text: "x" }
            measures { entropy {} }
            measures { entropy {} })pb",
       "measures[1]: 'entropy' is there twice"},
      {R"pb(model: "m"
            prompts { text: "x" }
            options { horizon: 0 })pb",
       "options.horizon: 0 is not allowed; it must be at least 1"},
      {R"pb(model: "m"
            prompts { text: "x" }
            options { horizon: -3 })pb",
       "options.horizon: -3 is not allowed"},
      {R"pb(model: "m"
            prompts { text: "x" }
            options { reduction: 9 })pb",
       "options.reduction: 9 is not a Reduction"},
      {R"pb(model: "m"
            prompts { text: "x" }
            heads { ranges { first: 3 last: 1 } })pb",
       "heads: "},
      {R"pb(model: "m"
            prompts { text: "x" }
            positions { ranges { first: -1 } })pb",
       "positions: "},
      {R"pb(model: "m"
            prompts { text: "x" }
            layers { ranges { stride: -2 } })pb",
       "layers: "},
  };
  for (const BadRequest& bad : cases) {
    EXPECT_THAT(Decode(bad.request), StatusIs(kInvalid, HasSubstr(bad.message))) << bad.request;
  }
}

TEST(ProtoCodecTest, RefusesWhatIsLargerThanItsLimit) {
  const RequestLimits limits;
  v1::ProfileRequest request = RequestOf(R"pb(model: "m"
                                              prompts { text: "x" })pb");
  request.mutable_prompts(0)->set_id(std::string(256, 'p'));
  for (int i = 1; i <= 64; ++i) request.add_measures()->set_tolerance(i);
  EXPECT_THAT(DecodeProfileRequest(request, limits), IsOk());

  request.add_measures()->set_tolerance(65);
  EXPECT_THAT(
      DecodeProfileRequest(request, limits),
      StatusIs(kInvalid, HasSubstr("measures: 65 measures in one request; the limit is 64")));

  request.mutable_prompts(0)->set_id(std::string(257, 'p'));
  EXPECT_THAT(DecodeProfileRequest(request, limits),
              StatusIs(kInvalid, HasSubstr("prompts[0].id: 257 bytes; the limit is 256")));
}

TEST(ProtoCodecTest, DecodesGaussianPrompts) {
  const auto job = Decode(R"pb(model: "m"
                               gaussian { count: 2 length: 5 seed: 9 })pb");

  ASSERT_THAT(job, IsOk());
  EXPECT_EQ(job->gaussian->count, 2);
  EXPECT_EQ(job->gaussian->length, 5);
  EXPECT_EQ(job->gaussian->seed, 9u);
  ASSERT_EQ(job->prompts.size(), 2u);
  EXPECT_EQ(job->prompts[1].id, "1");
}

TEST(ProtoCodecTest, RefusesGaussianPromptsThatCannotBe) {
  EXPECT_THAT(Decode(R"pb(model: "m"
                          prompts { text: "x" }
                          gaussian { count: 1 length: 2 })pb"),
              StatusIs(kInvalid, HasSubstr("gaussian: the request has prompts too")));
  EXPECT_THAT(Decode(R"pb(model: "m"
                          gaussian { length: 2 })pb"),
              StatusIs(kInvalid, HasSubstr("gaussian.count: 0; at least 1")));
  EXPECT_THAT(Decode(R"pb(model: "m"
                          gaussian { count: 1000000 length: 2 })pb"),
              StatusIs(kInvalid, HasSubstr("gaussian.count: 1000000 prompts in one request")));
  EXPECT_THAT(Decode(R"pb(model: "m"
                          gaussian { count: 1 length: -3 })pb"),
              StatusIs(kInvalid, HasSubstr("gaussian.length: -3; at least 1")));
  EXPECT_THAT(Decode(R"pb(model: "m")pb"), StatusIs(kInvalid, HasSubstr("or gaussian instead")));
}

TEST(ProtoCodecTest, RandomWeightsHaveNoStoredDtype) {
  v1::ModelOptions options;
  options.mutable_random_init()->set_seed(3);
  ASSERT_THAT(DecodeModelOptions(options), IsOk());
  EXPECT_EQ(DecodeModelOptions(options)->random_init_seed, 3u);

  options.set_dtype(v1::WEIGHT_DTYPE_AS_STORED);

  EXPECT_THAT(DecodeModelOptions(options), StatusIs(kInvalid, HasSubstr("options.dtype")));
}

TEST(ProtoCodecTest, DecodesTheOptions) {
  const auto plain = Decode(R"pb(model: "m"
                                 prompts { text: "x" })pb");
  ASSERT_THAT(plain, IsOk());
  EXPECT_EQ(plain->options, EssOptions{});
  EXPECT_EQ(plain->reduction, Reduction::kNone);

  const auto job =
      Decode(R"pb(model: "m"
                  prompts { text: "x" }
                  options { horizon: 4 certify: true reduction: REDUCTION_HEADS })pb");
  ASSERT_THAT(job, IsOk());
  EXPECT_EQ(job->options, (EssOptions{.horizon = 4, .certify = true}));
  EXPECT_EQ(job->reduction, Reduction::kHeads);
  v1::MeasureOptions encoded;
  EncodeMeasureOptions(job->options, job->reduction, &encoded);
  EXPECT_EQ(encoded.ShortDebugString(), "horizon: 4 certify: true reduction: REDUCTION_HEADS");
}

TEST(ProtoCodecTest, EncodesAndDecodesEachMeasureUnchanged) {
  for (const char* text : {"tolerance:0.001", "relative:0.5", "head_relative:0.01", "entropy",
                           "spectral_norm", "frobenius_norm", "singular_values:7", "causal"}) {
    v1::Measure message;
    EncodeMeasure(*ParseMeasure(text), &message);
    const auto decoded = DecodeMeasure(message, "measure");
    ASSERT_THAT(decoded, IsOk());
    EXPECT_EQ(FormatMeasure(*decoded), text);
  }
}

TEST(ProtoCodecTest, JoinsIndicesToRanges) {
  v1::IndexSelection message;
  EncodeIndices({0, 1, 2, 8, 16, 24, 25}, &message);

  const IndexSelection decoded = [&message] {
    IndexSelection selection;
    for (const auto& range : message.ranges()) {
      selection.ranges.push_back({range.first(), range.last(), range.stride()});
    }
    return selection;
  }();
  EXPECT_EQ(SelectedIndices(decoded, 100), (std::vector<int64_t>{0, 1, 2, 8, 16, 24, 25}));
  EXPECT_EQ(message.ranges_size(), 3);
}

}  // namespace
}  // namespace ess::rpc
