#include "server/jobs/result_file.h"

#include <cmath>
#include <cstring>
#include <string>

#include "gmock/gmock.h"
#include "nlohmann/json.hpp"
#include "server/base/sha256.h"
#include "tests/server/jobs/temporary_folder.h"
#include "tests/support/status_matchers.h"

namespace ess::jobs {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::ReadAll;
using ::ess::testing::StatusIs;
using ::ess::testing::WriteAll;
using nlohmann::json;

// Prompts of 3 tokens and 1; one layer of 2 heads.
class ResultFileTest : public ::testing::Test {
 protected:
  ResultFileTest() {
    files.folder = folder.path();
    const std::string prompts =
        R"([{"id": "0", "tokens": ["a", "\"", "é"]}, {"id": "1", "tokens": ["c"]}])";
    plan = {.model = {{"name", "m"}},
            .server_version = "1",
            .measures = {{.name = "tolerance:0.1"}, {.name = "entropy"}},
            .layers = {{.name = "000",
                        .operator_class = "DenseOperator",
                        .heads = {0, 1},
                        .channels = {8, 8},
                        .state_size = operators::StateSize::Growing()}},
            .positions = {0, 1, 2},
            .lengths = {3, 1},
            .prompts_json_bytes = std::ssize(prompts)};
    WriteAll(files.prompts_json(), prompts);
    const int64_t tokens[] = {5, 6, 7, 8};
    WriteAll(files.tokens(), std::string(reinterpret_cast<const char*>(tokens), sizeof(tokens)));
  }

  void WriteValues(ResultFile& file) {
    for (int64_t measure = 0; measure < 2; ++measure) {
      const std::vector<float> first = {0, 1, 2, 0, 3, 4};
      const std::vector<float> second = {9};
      ASSERT_THAT(file.Write({.measure = measure, .prompt = 0, .head_count = 2, .values = first}),
                  IsOk());
      ASSERT_THAT(file.Write({.measure = measure,
                              .prompt = 1,
                              .first_head = 1,
                              .head_count = 1,
                              .values = second}),
                  IsOk());
      ASSERT_THAT(file.Write({.measure = measure, .prompt = 1, .head_count = 1, .values = second}),
                  IsOk());
    }
    ASSERT_THAT(file.WriteFloors(0, 0, std::vector<float>{0.5F, 1e-6F}), IsOk());
    ASSERT_THAT(file.WriteFloors(0, 1, std::vector<float>{0.25F, 2}), IsOk());
  }

  std::string MakeResult(const ResultLayout& layout) {
    absl::StatusOr<ResultFile> file = ResultFile::Begin(files, plan, layout);
    EXPECT_THAT(file, IsOk());
    WriteValues(*file);
    EXPECT_FALSE(std::filesystem::exists(files.result()));
    EXPECT_THAT(file->Finish(notes), IsOk());
    EXPECT_FALSE(std::filesystem::exists(files.working()));
    return ReadAll(files.result());
  }

  // Of a safetensors file.
  static json HeaderOf(const std::string& bytes) {
    uint64_t size = 0;
    std::memcpy(&size, bytes.data(), 8);
    EXPECT_EQ(size % 8, 0U);
    return json::parse(bytes.substr(8, size));
  }
  template <typename T>
  static std::vector<T> Tensor(const std::string& bytes, const std::string& name) {
    uint64_t size = 0;
    std::memcpy(&size, bytes.data(), 8);
    const json offsets = HeaderOf(bytes).at(name).at("data_offsets");
    std::vector<T> values((offsets[1].get<size_t>() - offsets[0].get<size_t>()) / sizeof(T));
    std::memcpy(values.data(), bytes.data() + 8 + size + offsets[0].get<size_t>(),
                values.size() * sizeof(T));
    return values;
  }

  ::ess::testing::TemporaryFolder folder;
  JobFiles files;
  JobPlan plan;
  std::vector<LayerNotes> notes = {{.routes = {"a+b", "c"}, .below_noise_floor = {3, 0}}};
};

TEST_F(ResultFileTest, ValuesAreAtTheirPlacesAndAbsentOnesAreNan) {
  const std::string bytes = MakeResult(ResultLayout(plan));

  const auto values = Tensor<float>(bytes, "layer.000/ess/entropy");
  ASSERT_EQ(values.size(), 12U);
  EXPECT_EQ(std::vector<float>(values.begin(), values.begin() + 7),
            (std::vector<float>{0, 1, 2, 0, 3, 4, 9}));
  EXPECT_TRUE(std::isnan(values[7]) && std::isnan(values[8]) && std::isnan(values[11]));
  EXPECT_EQ(values[9], 9);
  EXPECT_EQ(Tensor<int64_t>(bytes, "token_ids"), (std::vector<int64_t>{5, 6, 7, 8, -1, -1}));
  EXPECT_EQ(Tensor<int32_t>(bytes, "layer.000/tss"), (std::vector<int32_t>{0, 1, 2, 0, -1, -1}));
  EXPECT_EQ(Tensor<int32_t>(bytes, "lengths"), (std::vector<int32_t>{3, 1}));
  EXPECT_EQ(DescribeResult(files, CancellationToken())->sha256, Sha256Hex(bytes));
}

TEST_F(ResultFileTest, ASmallManifestHoldsPromptsAndFloors) {
  const json manifest = json::parse(
      HeaderOf(MakeResult(ResultLayout(plan)))["__metadata__"]["manifest"].get<std::string>());

  EXPECT_EQ(manifest["schema"], 1);
  EXPECT_EQ(manifest["prompts"][0]["tokens"][1], "\"");
  EXPECT_EQ(manifest["layers"][0]["noise_floors"][1][1], 2.0);
  EXPECT_EQ(manifest["layers"][0]["routes"]["tolerance:0.1"], "a+b");
  EXPECT_EQ(manifest["layers"][0]["below_noise_floor"]["tolerance:0.1"], 3);
}

TEST_F(ResultFileTest, ALargeManifestLeavesThemInTensors) {
  const std::string bytes = MakeResult(ResultLayout(plan, /*max_inline_bytes=*/10));

  const json manifest = json::parse(HeaderOf(bytes)["__metadata__"]["manifest"].get<std::string>());
  EXPECT_EQ(manifest["schema"], 2);
  EXPECT_FALSE(manifest.contains("prompts"));
  const auto prompts = Tensor<char>(bytes, "prompts");
  EXPECT_EQ(json::parse(std::string(prompts.begin(), prompts.end()))[1]["id"], "1");
  EXPECT_EQ(Tensor<float>(bytes, "layer.000/noise_floors"),
            (std::vector<float>{0.5F, 1e-6F, 0.25F, 2}));
}

TEST_F(ResultFileTest, AFinishThatWasInterruptedGoesOnToTheSameBytes) {
  const ResultLayout layout(plan);
  const std::string undisturbed = MakeResult(layout);
  std::filesystem::remove(files.result());
  {
    absl::StatusOr<ResultFile> file = ResultFile::Begin(files, plan, layout);
    ASSERT_THAT(file, IsOk());
    WriteValues(*file);
  }
  // After the header, before the floors are cut off; and after that, before the name.
  std::string working = ReadAll(files.working());
  working.replace(0, layout.data_offset(), undisturbed, 0, layout.data_offset());
  for (const std::string& left :
       {working, working.substr(0, static_cast<size_t>(layout.file_bytes()))}) {
    WriteAll(files.working(), left);
    absl::StatusOr<ResultFile> file = ResultFile::Resume(files, plan, layout);
    ASSERT_THAT(file, IsOk());
    ASSERT_THAT(file->Finish(notes), IsOk());
    EXPECT_EQ(ReadAll(files.result()), undisturbed);
  }
}

TEST_F(ResultFileTest, AWorkingFileOfAnotherSizeIsRefused) {
  const ResultLayout layout(plan);
  ASSERT_THAT(ResultFile::Begin(files, plan, layout), IsOk());
  std::filesystem::resize_file(files.working(), 100);

  EXPECT_THAT(ResultFile::Resume(files, plan, layout),
              StatusIs(absl::StatusCode::kDataLoss, ::testing::HasSubstr("100 bytes")));
}

}  // namespace
}  // namespace ess::jobs
