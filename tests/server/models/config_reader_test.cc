#include "server/models/config_reader.h"

#include <limits>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace ess::models {
namespace {

using absl::StatusCode;
using ess::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

nlohmann::json Parse(const std::string& text) { return nlohmann::json::parse(text); }

TEST(ConfigReaderTest, AMissingKeyAndAnExplicitNullGiveTheDefault) {
  const nlohmann::json json = Parse(R"({"head_dim": null})");
  const ConfigReader config(json);

  EXPECT_EQ(*config.Size("head_dim", 64), 64);
  EXPECT_EQ(*config.Size("hidden_size", 32), 32);
  EXPECT_FALSE(config.Has("head_dim"));
}

TEST(ConfigReaderTest, AnExplicitNullMaySayNone) {
  const nlohmann::json json = Parse(R"({"sliding_window": null, "other": 7})");
  const ConfigReader config(json);

  EXPECT_EQ(*config.SizeOrNone("sliding_window", 4096), 0);
  EXPECT_EQ(*config.SizeOrNone("absent", 4096), 4096);
  EXPECT_EQ(*config.SizeOrNone("other", 4096), 7);
  EXPECT_TRUE(config.IsNull("sliding_window"));
  EXPECT_FALSE(config.IsNull("absent"));
}

TEST(ConfigReaderTest, AListOfChoicesIsCheckedEntryByEntry) {
  const nlohmann::json json =
      Parse(R"({"layer_types": ["full", "sliding"], "mixed": ["full", 3], "text": "full"})");
  const ConfigReader config(json);

  EXPECT_EQ(*config.Choices("layer_types", 2, {"sliding", "full"}),
            (std::vector<std::string>{"full", "sliding"}));
  EXPECT_THAT(config.Choices("layer_types", 3, {"sliding", "full"}),
              StatusIs(StatusCode::kDataLoss, HasSubstr("layer_types has 2 entries; expected 3")));
  EXPECT_THAT(config.Choices("layer_types", 2, {"sliding"}),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("entries sliding")));
  for (const char* key : {"mixed", "text"}) {
    EXPECT_THAT(config.Choices(key, 2, {"sliding", "full"}),
                StatusIs(StatusCode::kDataLoss, HasSubstr("a list of strings")));
  }
}

TEST(ConfigReaderTest, BoundsMayBeInfiniteInEverySpelling) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const nlohmann::json json = Parse(
      R"({"numbers": [0.1, 2], "word": [0, "Infinity"], "both": ["-Infinity", "Infinity"],
          "object": [0, {"__float__": "Infinity"}],
          "backwards": [2, 1], "one": [1], "text": [0, "far"], "no list": 3})");
  const ConfigReader config(json);

  EXPECT_EQ(*config.Bounds("numbers"), std::pair(0.1, 2.0));
  EXPECT_EQ(*config.Bounds("word"), std::pair(0.0, kInfinity));
  EXPECT_EQ(*config.Bounds("object"), std::pair(0.0, kInfinity));
  EXPECT_EQ(*config.Bounds("both"), std::pair(-kInfinity, kInfinity));
  EXPECT_EQ(*config.Bounds("absent"), std::pair(-kInfinity, kInfinity));
  for (const char* key : {"backwards", "one", "text", "no list"}) {
    EXPECT_THAT(config.Bounds(key),
                StatusIs(StatusCode::kDataLoss, AllOf(HasSubstr(key), HasSubstr("upper bound"))));
  }
}

TEST(ConfigReaderTest, IndicesAreWithinTheirCount) {
  const nlohmann::json json = Parse(R"({"some": [0, 3], "none": [], "far": [4], "half": [0.5]})");
  const ConfigReader config(json);

  EXPECT_EQ(*config.Indices("some", 4), (std::vector<int64_t>{0, 3}));
  EXPECT_TRUE(config.Indices("none", 4)->empty());
  EXPECT_TRUE(config.Indices("absent", 4)->empty());
  EXPECT_THAT(config.Indices("far", 4),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("entries from 0 to 3")));
  EXPECT_THAT(config.Indices("half", 4),
              StatusIs(StatusCode::kDataLoss, HasSubstr("a list of integers")));
}

TEST(ConfigReaderTest, AMissingKeyWithoutADefaultIsDataLoss) {
  const nlohmann::json json = Parse("{}");

  EXPECT_THAT(ConfigReader(json).String("model_type", std::nullopt),
              StatusIs(StatusCode::kDataLoss, HasSubstr("model_type is missing")));
}

TEST(ConfigReaderTest, AWrongTypeNamesKeyValueAndExpectedType) {
  const nlohmann::json json = Parse(
      R"({"hidden_size": "64", "vocab_size": 64.5, "n_layer": true, "mlp_bias": 1, "eps": "x"})");
  const ConfigReader config(json);

  for (const char* key : {"hidden_size", "vocab_size", "n_layer"}) {
    EXPECT_THAT(config.Size(key, 1),
                StatusIs(StatusCode::kDataLoss, AllOf(HasSubstr(key), HasSubstr("an integer"))));
  }
  EXPECT_THAT(config.Size("hidden_size", 1), StatusIs(StatusCode::kDataLoss, HasSubstr("\"64\"")));
  EXPECT_THAT(config.Bool("mlp_bias", false),
              StatusIs(StatusCode::kDataLoss, HasSubstr("true or false")));
  EXPECT_THAT(config.Number("eps", 1, 0, 1), StatusIs(StatusCode::kDataLoss, HasSubstr("eps")));
}

TEST(ConfigReaderTest, ASizeOutOfRangeNamesTheValueAndTheLimits) {
  for (const char* value :
       {"0", "-3", "16777217", "18446744073709551615", "-9223372036854775808"}) {
    const nlohmann::json json = Parse(std::string(R"({"hidden_size": )") + value + "}");

    EXPECT_THAT(
        ConfigReader(json).Size("hidden_size", 1),
        StatusIs(StatusCode::kFailedPrecondition,
                 AllOf(HasSubstr("hidden_size"), HasSubstr(value), HasSubstr("1 to 16777216"))));
  }
}

TEST(ConfigReaderTest, LayersHaveALimitOfTheirOwn) {
  const nlohmann::json json =
      Parse(R"({"num_hidden_layers": 4097, "n_layer": 4097, "few": 4096, "num_mtp": 4097})");
  const ConfigReader config(json);

  EXPECT_EQ(*config.Size("few", 1, kMaxLayers), 4096);
  EXPECT_THAT(config.Size("num_hidden_layers", 1, kMaxLayers),
              StatusIs(StatusCode::kFailedPrecondition,
                       HasSubstr("num_hidden_layers is 4097; supported: 1 to 4096")));
  EXPECT_THAT(config.Size("absent", "n_layer", 1, kMaxLayers),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("n_layer is 4097")));
  EXPECT_THAT(config.Count("num_mtp", 1, kMaxLayers),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("supported: 0 to 4096")));
}

TEST(ConfigReaderTest, ACountMayBeZero) {
  const nlohmann::json json = Parse(R"({"first_k_dense_replace": 0, "extra": -1})");
  const ConfigReader config(json);

  EXPECT_EQ(*config.Count("first_k_dense_replace", 3), 0);
  EXPECT_EQ(*config.Count("absent", 3), 3);
  EXPECT_THAT(config.Count("extra", 3),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("0 to 16777216")));
}

TEST(ConfigReaderTest, AnUnknownChoiceNamesWhatIsSupported) {
  const nlohmann::json json = Parse(R"({"hidden_act": "mish"})");

  EXPECT_THAT(ConfigReader(json).Choice("hidden_act", "silu", {"silu", "relu"}),
              StatusIs(StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("hidden_act"), HasSubstr("mish"), HasSubstr("silu, relu"))));
}

TEST(ConfigReaderTest, AnAliasServesAndAContradictionIsRefused) {
  const nlohmann::json json =
      Parse(R"({"hidden_size": 8, "n_layer": 2, "num_hidden_layers": 3, "n_head": 4,
                "num_attention_heads": 4})");
  const ConfigReader config(json);

  EXPECT_EQ(*config.Size("n_embd", "hidden_size", 768), 8);
  EXPECT_EQ(*config.Size("n_head", "num_attention_heads", 12), 4);
  EXPECT_EQ(*config.Size("n_positions", "max_position_embeddings", 1024), 1024);
  EXPECT_THAT(config.Size("n_layer", "num_hidden_layers", 12),
              StatusIs(StatusCode::kDataLoss,
                       AllOf(HasSubstr("n_layer is 2"), HasSubstr("num_hidden_layers is 3"))));
}

TEST(ConfigReaderTest, KeysOfANestedObjectAreNamedWithTheirPath) {
  const nlohmann::json json = Parse(R"({"rope_scaling": {"factor": -1}})");
  const auto scaling = ConfigReader(json).Object("rope_scaling");
  ASSERT_THAT(scaling, ess::testing::IsOk());

  EXPECT_THAT((*scaling)->Number("factor", std::nullopt, 1, 10),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("rope_scaling.factor is -1")));
}

TEST(ConfigReaderTest, NumbersBeyondDoubleAreRefused) {
  // The JSON reader turns Python's bare Infinity into a string.
  const nlohmann::json json = Parse(R"({"rope_theta": "Infinity"})");

  EXPECT_THAT(ConfigReader(json).Number("rope_theta", 1e4, 0, 1e15),
              StatusIs(StatusCode::kDataLoss, HasSubstr("rope_theta")));
}

TEST(ConfigReaderTest, AListOfAnotherLengthOrWithABadEntryIsRefused) {
  const nlohmann::json json = Parse(R"({"a": [1, 2], "b": [1, -2, 3], "c": [1, "x", 3], "d": 1})");
  const ConfigReader config(json);

  EXPECT_THAT(config.Numbers("a", 3, 0, 9),
              StatusIs(StatusCode::kDataLoss, HasSubstr("a has 2 entries; expected 3")));
  EXPECT_THAT(config.Numbers("b", 3, 0, 9),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("entries from 0 to 9")));
  EXPECT_THAT(config.Numbers("c", 3, 0, 9),
              StatusIs(StatusCode::kDataLoss, HasSubstr("a list of numbers")));
  EXPECT_THAT(config.Numbers("d", 3, 0, 9),
              StatusIs(StatusCode::kDataLoss, HasSubstr("a list of numbers")));
}

TEST(ConfigReaderTest, ObjectsComeAloneOrInAListAndKnowTheirPath) {
  const nlohmann::json json =
      Parse(R"({"one": {"x": 0}, "two": [{"x": 1}, {"x": 0}], "mixed": [{}, 3], "text": "x"})");
  const ConfigReader config(json);

  const auto one = config.Objects("one");
  const auto two = config.Objects("two");

  ASSERT_THAT(one, ess::testing::IsOk());
  ASSERT_THAT(two, ess::testing::IsOk());
  ASSERT_EQ(one->size(), 1u);
  ASSERT_EQ(two->size(), 2u);
  EXPECT_THAT(one->front().Size("x", 1).status(),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("one.x is 0")));
  EXPECT_THAT(two->back().Size("x", 1).status(),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("two[1].x is 0")));
  EXPECT_TRUE(config.Objects("absent")->empty());
  for (const char* key : {"mixed", "text"}) {
    EXPECT_THAT(config.Objects(key).status(),
                StatusIs(StatusCode::kDataLoss, HasSubstr("an object or a list of objects")));
  }
}

TEST(ConfigReaderTest, MessagesNameTheFileAndTheKeysThatItHas) {
  const nlohmann::json json = Parse(R"({"hidden_size": 0, "one": {"x": 0}, "two": [{"x": 0}]})");
  const KeyNames names = {{"hidden_size", "dim"}, {"one.x", "y"}};
  const ConfigReader config(json, "", "params.json", &names);

  EXPECT_THAT(config.Size("hidden_size", 1).status(),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("params.json: dim is 0")));
  EXPECT_THAT((*config.Object("one"))->Size("x", 1).status(),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("params.json: y is 0")));
  for (const char* const key : {"one", "two"}) {
    EXPECT_THAT(config.Objects(key)->front().Size("x", 1).status(),
                StatusIs(StatusCode::kFailedPrecondition, HasSubstr("params.json: ")));
  }
  EXPECT_THAT(config.Contradiction("x"), StatusIs(StatusCode::kDataLoss, "params.json: x"));
  EXPECT_THAT(
      config.CheckMultiple("hidden_size", 7, "heads", 2),
      StatusIs(StatusCode::kDataLoss, "params.json: dim is 7, not a multiple of heads = 2"));
}

TEST(ConfigReaderTest, ProductsOfSizesAreBounded) {
  const nlohmann::json json = Parse(R"({"expand": 8})");
  const ConfigReader config(json);

  EXPECT_EQ(*config.SizeTimes("expand", 2, "hidden_size", 5), 40);
  EXPECT_EQ(*config.SizeTimes("absent", 2, "hidden_size", 5), 10);
  EXPECT_THAT(config.SizeTimes("expand", 2, "hidden_size", kMaxConfigSize / 4).status(),
              StatusIs(StatusCode::kFailedPrecondition,
                       HasSubstr("expand is 8; supported: expand * hidden_size up to 16777216")));
}

TEST(ConfigReaderTest, ASizeForAllMayBeWrittenOnceOrForEach) {
  const nlohmann::json json =
      Parse(R"({"once": 8, "each": [8, 8], "mixed": [8, 16], "long": [8]})");
  const ConfigReader config(json);

  EXPECT_EQ(*config.SameSize("once", 2, 4), 8);
  EXPECT_EQ(*config.SameSize("each", 2, 4), 8);
  EXPECT_EQ(*config.SameSize("absent", 2, 4), 4);
  EXPECT_THAT(config.SameSize("mixed", 2, 4),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("mixed is [8,16]")));
  EXPECT_THAT(config.SameSize("long", 2, 4),
              StatusIs(StatusCode::kDataLoss, HasSubstr("long has 1 entries; expected 2")));
}

TEST(ConfigReaderTest, ALongValueIsCutInMessages) {
  const nlohmann::json json = {{"hidden_act", std::string(1000, 'x')}};

  const absl::Status status = ConfigReader(json).Choice("hidden_act", "silu", {"silu"}).status();

  EXPECT_LT(status.message().size(), 200u);
}

}  // namespace
}  // namespace ess::models
