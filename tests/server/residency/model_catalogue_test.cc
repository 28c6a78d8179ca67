#include "server/residency/model_catalogue.h"

#include <fstream>

#include "gmock/gmock.h"
#include "tests/support/status_matchers.h"

namespace ess::residency {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ModelCatalogueTest : public ::testing::Test {
 protected:
  ModelCatalogueTest() {
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_);
    AddFolder("beta");
    AddFolder("alpha");
    std::filesystem::create_directories(root_ / "not-a-model");
  }

  void AddFolder(const std::string& name) {
    std::filesystem::create_directories(root_ / name);
    std::ofstream(root_ / name / "config.json") << "{}";
  }

  const std::filesystem::path root_ =
      std::filesystem::path(::testing::TempDir()) / "model_catalogue_test";
};

TEST_F(ModelCatalogueTest, KnowsTheFoldersOfItsRootAndTheConfiguredModels) {
  const ModelCatalogue catalogue(root_, {{.name = "gamma", .folder = "/elsewhere"}});
  EXPECT_THAT(catalogue.Names(), ElementsAre("alpha", "beta", "gamma"));
}

TEST_F(ModelCatalogueTest, FindsAFolderThatAppearsWhileItRuns) {
  const ModelCatalogue catalogue(root_, {});
  AddFolder("late");
  EXPECT_THAT(catalogue.Find("late"), IsOk());
}

TEST_F(ModelCatalogueTest, NamesWhatExistsWhenAModelDoesNot) {
  const ModelCatalogue catalogue(root_, {});
  EXPECT_THAT(
      catalogue.Find("gamma"),
      StatusIs(absl::StatusCode::kNotFound, AllOf(HasSubstr("'gamma'"), HasSubstr("alpha, beta"))));
}

TEST_F(ModelCatalogueTest, NeverLeavesItsRoot) {
  const ModelCatalogue catalogue(root_ / "alpha", {});
  for (const char* name : {"../beta", "..", ".", "", "/", "a/b"}) {
    EXPECT_THAT(catalogue.Find(name), StatusIs(absl::StatusCode::kNotFound, HasSubstr("model")))
        << name;
  }
}

TEST_F(ModelCatalogueTest, ServesAnAliasFromThenOn) {
  ModelCatalogue catalogue(root_, {});
  ASSERT_THAT(catalogue.Add({.name = "other", .folder = root_ / "alpha"}), IsOk());
  ASSERT_THAT(catalogue.Find("other"), IsOk());
  EXPECT_EQ(catalogue.Find("other")->folder, root_ / "alpha");
}

TEST_F(ModelCatalogueTest, RefusesAnAliasThatIsAnotherModelsName) {
  ModelCatalogue catalogue(root_, {});
  EXPECT_THAT(catalogue.Add({.name = "beta", .folder = root_ / "alpha"}),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("'beta'")));
}

TEST_F(ModelCatalogueTest, KeepsTheOptionsOfAnAliasThatIsThere) {
  ModelCatalogue catalogue(root_, {});
  CatalogueEntry entry{.name = "other", .folder = root_ / "alpha", .options = {.as_stored = true}};
  ASSERT_THAT(catalogue.Add(entry), IsOk());
  entry.options = {};
  ASSERT_THAT(catalogue.Add(entry), IsOk());
  EXPECT_TRUE(catalogue.Find("other")->options.as_stored);
}

TEST_F(ModelCatalogueTest, QuotesTheBeginningOfALongName) {
  const ModelCatalogue catalogue(root_, {});
  const absl::Status status = catalogue.Find(std::string(1 << 20, 'x')).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kNotFound, HasSubstr("alpha, beta")));
  EXPECT_LT(status.message().size(), 300u);
}

TEST_F(ModelCatalogueTest, RefusesAnAliasThatIsNoName) {
  ModelCatalogue catalogue(root_, {});
  EXPECT_THAT(catalogue.Add({.name = "../x", .folder = root_ / "alpha"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("options.alias: '../x'")));
}

TEST_F(ModelCatalogueTest, TakesNoMoreAliasesThanItsLimit) {
  ModelCatalogue catalogue(root_, {});
  for (int i = 0; i < kMaxAliases; ++i) {
    ASSERT_THAT(catalogue.Add({.name = std::to_string(i), .folder = root_ / "alpha"}), IsOk());
  }

  EXPECT_THAT(catalogue.Add({.name = "one-more", .folder = root_ / "alpha"}),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("256 aliases")));
  EXPECT_THAT(catalogue.Add({.name = "0", .folder = root_ / "alpha"}), IsOk());
}

}  // namespace
}  // namespace ess::residency
