"""x"""
import time
from tests.escapes.attacking import attack, idle, processes_inside, cgroups_left, still_answers
def test_a(sealed, unharmed):
    """x"""
    t=time.monotonic()
    result, neighbour = attack(sealed, "while True: pass", timeout_s=0.5)
    print(time.monotonic()-t, result.status, result.error, neighbour.status, neighbour.stdout, neighbour.report_text)
    run = sealed.start("import time; print(1, flush=True); time.sleep(9)")
    next(run.events()); next(run.events())
    print(processes_inside(), cgroups_left())
    run.cancel()
    print(processes_inside(), cgroups_left())
