    // Says what was found, and ends: with a process code that is not 0 where anything is wrong.
    task finish;
        begin
            if (errors == 0 && cycles !== EXPECTED_CYCLES) begin
                errors = 1;
                $display("FAIL cycles=%0d, expected %0d", cycles, EXPECTED_CYCLES);
            end
            if (errors == 0) begin
                $display("PASS cycles=%0d", cycles);
                $finish;
            end
`ifdef __ICARUS__
            else $finish_and_return(1);
`else
            else $stop;
`endif
        end
    endtask
