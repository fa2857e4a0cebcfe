"""What defines a run: the schema, its identity, and overrides by dotted paths.

What sweep files and everything above import, whichever module has it."""

from harness.config.evaluation import FORMS as FORMS
from harness.config.evaluation import VALIDATION as VALIDATION
from harness.config.evaluation import BenchmarkData as BenchmarkData
from harness.config.evaluation import ClassFolder as ClassFolder
from harness.config.evaluation import DeployedForm as DeployedForm
from harness.config.evaluation import Evaluate as Evaluate
from harness.config.fields import SOURCES as SOURCES
from harness.config.fields import TERMS as TERMS
from harness.config.fields import field_paths as field_paths
from harness.config.fields import validate as validate
from harness.config.identity import NOT_IDENTITY as NOT_IDENTITY
from harness.config.identity import Float as Float
from harness.config.identity import Int as Int
from harness.config.identity import Strict as Strict
from harness.config.identity import canonical_json as canonical_json
from harness.config.identity import content_key as content_key
from harness.config.identity import integer as integer
from harness.config.model import ImageTower as ImageTower
from harness.config.model import Model as Model
from harness.config.model import TextTower as TextTower
from harness.config.overrides import check_path as check_path
from harness.config.overrides import override as override
from harness.config.overrides import override_runtime as override_runtime
from harness.config.overrides import parse_assignment as parse_assignment
from harness.config.overrides import parse_assignments as parse_assignments
from harness.config.runtime import Runtime as Runtime
from harness.config.runtime import check_processes as check_processes
from harness.config.schema import Columns as Columns
from harness.config.schema import Data as Data
from harness.config.schema import Objective as Objective
from harness.config.schema import RunConfig as RunConfig
from harness.config.schema import Schedule as Schedule
from harness.config.schema import parts_of_a_batch as parts_of_a_batch
from harness.config.schema import unregistered_terms as unregistered_terms
from harness.config.training import Teacher as Teacher
from harness.config.training import Train as Train
from harness.config.values import divisors_near as divisors_near
