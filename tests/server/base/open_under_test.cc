#include "server/base/open_under.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace ess {
namespace {

using ::ess::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// root/file, root/folder/inner, and beside root a file "secret".
class OpenUnderTest : public ::testing::Test {
 protected:
  OpenUnderTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "open_under.XXXXXX").string();
    base_ = mkdtemp(pattern.data());
    root_ = base_ / "root";
    std::filesystem::create_directories(root_ / "folder");
    Write(root_ / "file", "text");
    Write(root_ / "folder" / "inner", "inner text");
    Write(base_ / "secret", "secret text");
  }
  ~OpenUnderTest() override { std::filesystem::remove_all(base_); }

  static void Write(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(path) << text;
  }

  std::string Read(std::string_view relative) {
    const absl::StatusOr<FileDescriptor> file = OpenUnder(root_, relative);
    if (!file.ok()) return file.status().ToString();
    char text[100];
    const ssize_t bytes = read(file->get(), text, sizeof(text));
    return std::string(text, bytes);
  }

  std::filesystem::path base_;
  std::filesystem::path root_;
};

TEST_F(OpenUnderTest, OpensAFileInTheFolderAndBelow) {
  EXPECT_EQ(Read("file"), "text");
  EXPECT_EQ(Read("folder/inner"), "inner text");
}

TEST_F(OpenUnderTest, TheFolderItselfMayBeALink) {
  std::filesystem::create_symlink(root_, base_ / "link");
  root_ = base_ / "link";

  EXPECT_EQ(Read("folder/inner"), "inner text");
}

TEST_F(OpenUnderTest, NamesThatLeaveTheFolderAreRefused) {
  const std::string absolute = (base_ / "secret").string();
  for (const std::string_view name :
       {std::string_view("../secret"), std::string_view("folder/../../secret"),
        std::string_view("folder/.."), std::string_view(".."), std::string_view("."),
        std::string_view("./file"), std::string_view("folder//inner"), std::string_view("folder/"),
        std::string_view(""), std::string_view(absolute), std::string_view("file\0x", 6)}) {
    EXPECT_THAT(OpenUnder(root_, name).status(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")))
        << name;
  }
}

TEST_F(OpenUnderTest, ALinkIsNotFollowedWhereverItLeads) {
  std::filesystem::create_symlink("../secret", root_ / "out");
  std::filesystem::create_symlink("file", root_ / "within");
  std::filesystem::create_symlink(base_, root_ / "up");

  for (const char* name : {"out", "within", "up/secret"}) {
    EXPECT_THAT(OpenUnder(root_, name).status(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("symbolic link")))
        << name;
  }
}

TEST_F(OpenUnderTest, WhatIsNoRegularFileIsRefusedWithoutWaiting) {
  ASSERT_EQ(mkfifo((root_ / "pipe").c_str(), 0600), 0);

  for (const char* name : {"pipe", "folder"}) {
    EXPECT_THAT(OpenUnder(root_, name).status(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a regular file")))
        << name;
  }
}

TEST_F(OpenUnderTest, AMissingFileIsNotFoundAndNoErrorNamesTheFolder) {
  for (const char* name : {"none", "none/file", "file/inner"}) {
    EXPECT_THAT(OpenUnder(root_, name).status(),
                StatusIs(absl::StatusCode::kNotFound,
                         AllOf(HasSubstr(name), Not(HasSubstr(base_.string())))))
        << name;
  }
  EXPECT_THAT(OpenUnder(root_ / "gone", "file").status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, Not(HasSubstr(base_.string()))));
}

TEST_F(OpenUnderTest, ALongNameIsRefusedAndCut) {
  EXPECT_THAT(OpenUnder(root_, std::string(100000, 'a')).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1024")));
}

}  // namespace
}  // namespace ess
