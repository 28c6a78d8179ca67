#include "server/checkpoint/safetensors_file.h"

#include <sys/stat.h>

#include "gmock/gmock.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/status_matchers.h"

namespace ess::checkpoint {
namespace {

using ::ess::testing::Float32Tensor;
using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::ess::testing::WriteRawSafetensors;
using ::ess::testing::WriteSafetensors;
using ::testing::AllOf;
using ::testing::HasSubstr;

class SafetensorsFileTest : public ::testing::Test {
 protected:
  auto Open() { return SafetensorsFile::Open(path_, "model.safetensors"); }

  // Expects that a file of this header and data is refused with this message.
  void ExpectRefused(const std::string& header, const std::string& data,
                     const std::string& message) {
    WriteRawSafetensors(path_, header, data);
    EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kDataLoss,
                                 AllOf(HasSubstr("model.safetensors: "), HasSubstr(message))))
        << header;
  }

  const std::filesystem::path path_ =
      ::ess::testing::FreshFolder(::testing::TempDir(), "safetensors_file_test") /
      "model.safetensors";
};

TEST_F(SafetensorsFileTest, ReadsNamesTypesShapesAndBytes) {
  WriteSafetensors(path_, {{"a", Float32Tensor({2, 1}, {1, 2})}, {"b", Float32Tensor({}, {3})}});

  const auto file = Open();

  ASSERT_THAT(file, IsOk());
  ASSERT_EQ((*file)->tensors().size(), 2u);
  const TensorEntry& a = (*file)->tensors().at("a");
  EXPECT_EQ(a.dtype, "F32");
  EXPECT_EQ(a.shape, (std::vector<int64_t>{2, 1}));
  float value = 0;
  ASSERT_THAT(
      (*file)->Read((*file)->tensors().at("b"), std::as_writable_bytes(std::span(&value, 1))),
      IsOk());
  EXPECT_EQ(value, 3);
}

TEST_F(SafetensorsFileTest, SurvivesAFileThatBecomesShorterWhileItIsRead) {
  WriteSafetensors(path_, {{"a", Float32Tensor({2}, {1, 2})}});
  const auto file = Open();
  ASSERT_THAT(file, IsOk());
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 4);
  std::vector<float> values(2);

  EXPECT_THAT((*file)->Read((*file)->tensors().at("a"), std::as_writable_bytes(std::span(values))),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("became shorter")));
}

TEST_F(SafetensorsFileTest, RefusesANamedPipeWithoutWaitingForIt) {
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("is not a file")));
}

TEST_F(SafetensorsFileTest, TakesTensorsInAnyOrderPaddedHeadersMetadataAndEmptyTensors) {
  WriteRawSafetensors(path_,
                      R"({"__metadata__":{"format":"pt"},)"
                      R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},)"
                      R"("e":{"dtype":"F32","shape":[0,4],"data_offsets":[1,1]},)"
                      R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}   )",
                      "xyz");
  EXPECT_THAT(Open(), IsOk());
}

TEST_F(SafetensorsFileTest, RefusesWhatIsNoFile) {
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("cannot be opened")));
}

TEST_F(SafetensorsFileTest, RefusesAFileTooShortForItsHeader) {
  std::ofstream(path_) << "abc";
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("3 bytes")));
  std::ofstream(path_) << std::string("\x40\0\0\0\0\0\0\0{}", 10);
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("truncated")));
  std::ofstream(path_) << std::string(8, '\xff') + "{}";
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("the limit is 100000000")));
}

TEST_F(SafetensorsFileTest, RefusesATruncatedFile) {
  WriteSafetensors(path_, {{"a", Float32Tensor({4}, {1, 2, 3, 4})}});
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 5);
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kDataLoss,
                               HasSubstr("need 16 bytes of data, the file has 11: truncated?")));
}

TEST_F(SafetensorsFileTest, RefusesHeadersThatAreNotJson) {
  ExpectRefused(" {}", "", "does not begin with '{'");
  ExpectRefused("{", "", "not JSON");
  ExpectRefused("{\"\xff\":1}", "", "not JSON");
}

TEST_F(SafetensorsFileTest, RefusesAnEntryOfTheWrongForm) {
  ExpectRefused(R"({"a":1})", "", "tensor 'a'");
  ExpectRefused(R"({"a":{"dtype":"F32","shape":[1]}})", "", "needs exactly");
  ExpectRefused(R"({"a":{"dtype":"F7","shape":[1],"data_offsets":[0,4]}})", "abcd",
                "unknown dtype \"F7\"");
  ExpectRefused(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "abcd", "shape");
  ExpectRefused(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", "abcd", "shape");
  ExpectRefused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "abcd", "data_offsets");
}

TEST_F(SafetensorsFileTest, RefusesAKeyThatIsThereTwice) {
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                "x", "the key 'a' is there twice");
}

TEST_F(SafetensorsFileTest, RefusesBytesThatContradictTheShape) {
  ExpectRefused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "abcd",
                "F32 of shape [2] needs 8 bytes, data_offsets are [0, 4]");
  ExpectRefused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "abcd", "[4, 0]");
}

TEST_F(SafetensorsFileTest, RefusesAShapeThatOverflows) {
  ExpectRefused(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", "",
                "overflows");
}

TEST_F(SafetensorsFileTest, RefusesHolesOverlapsAndTrailingBytes) {
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", "xy",
                "begins at 1 where 0 was expected");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                "xyz", "begins at 1 where 2 was expected");
  ExpectRefused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "xy",
                "need 1 bytes of data, the file has 2");
}

TEST_F(SafetensorsFileTest, RefusesANameLongerThanItsLimit) {
  ExpectRefused(
      "{\"" + std::string(1025, 'a') + R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x",
      "a tensor's name has 1025 bytes; the limit is 1024");
}

TEST_F(SafetensorsFileTest, RefusesMoreDimensionsThanItsLimit) {
  ExpectRefused(
      R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})",
      "x", "at most 16");
}

}  // namespace
}  // namespace ess::checkpoint
