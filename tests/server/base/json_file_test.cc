#include "server/base/json_file.h"

#include "gmock/gmock.h"
#include "tests/support/status_matchers.h"

namespace ess {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::HasSubstr;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;

TEST(JsonFileTest, ReadsTheBareWordsThatPythonWrites) {
  const auto json =
      ParseJson(R"({"a": [0.0, Infinity, -Infinity], "NaN": NaN, "s": "\"NaN"})", "f");
  ASSERT_THAT(json, IsOk());
  EXPECT_EQ((*json)["a"][1], "Infinity");
  EXPECT_EQ((*json)["a"][2], "-Infinity");
  EXPECT_EQ((*json)["NaN"], "NaN");
  EXPECT_EQ((*json)["s"], "\"NaN");
}

TEST(JsonFileTest, RefusesWhatIsNotJson) {
  EXPECT_THAT(ParseJson("{", "config.json"),
              StatusIs(kDataLoss, HasSubstr("config.json: not JSON")));
}

TEST(JsonFileTest, RefusesAKeyThatIsThereTwiceInOneObject) {
  EXPECT_THAT(ParseJson(R"({"a": 1, "b": {"a": 2}})", "f"), IsOk());
  EXPECT_THAT(ParseJson(R"({"b": {"a": 1, "a": 2}})", "f"),
              StatusIs(kDataLoss, HasSubstr("the key 'a' is there twice")));
}

TEST(JsonFileTest, RefusesWhatIsNestedWithoutEnd) {
  const std::string open(1'000'000, '['), close(1'000'000, ']');
  EXPECT_THAT(ParseJson("{\"a\": " + open + close + "}", "f"),
              StatusIs(kDataLoss, HasSubstr("f: nested deeper than 64 levels")));
  EXPECT_THAT(ParseJson("{\"a\": [[[[1]]]], \"b\": {\"c\": {\"d\": [{}]}}}", "f"), IsOk());
}

TEST(JsonFileTest, QuotesLittleOfAFile) {
  const std::string text = "{\"" + std::string(1 << 20, 'x');
  EXPECT_LT(ParseJson(text, "f").status().message().size(), 500u);
  EXPECT_LT(ParseJson(text + "\": 1, " + text.substr(1) + "\": 1}", "f").status().message().size(),
            500u);
}

TEST(JsonFileTest, RefusesAFileThatIsMissingOrTooLarge) {
  EXPECT_THAT(ReadJsonFile("/nowhere", "config.json", 10),
              StatusIs(kDataLoss, HasSubstr("config.json: cannot be read")));
  EXPECT_THAT(ReadTextFile("/proc/self/exe", "exe", 10),
              StatusIs(kDataLoss, HasSubstr("the limit is 10")));
}

}  // namespace
}  // namespace ess
